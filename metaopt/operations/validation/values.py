"""Standard checks of safetensors files: the bits are those that were written, and all values are finite."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import FileFormatError
from ...core.text import shown
from ...trajectories.checkpoint import load_checkpoint
from ...weights.facts import COUNT, first_violation, is_number
from ...weights.files import read_tensors
from ...weights.layout import is_finite
from .base import STANDARD, CannotCheck, Check, Finding
from .headers import file_kind
from .subjects import Subject

_MAY_BE_INFINITE = "model/"
"""Prefix of tensors of a checkpoint among which are buffers, such as masks of attention."""


class Digests(Check):
    """The contents of each file match the sha256 in its header."""

    level = STANDARD
    kinds = ("trajectory", "checkpoint", "model")

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each changed file."""
        for path in subject.files:
            try:
                read_tensors(path, file_kind(path, subject))
            except FileFormatError as error:
                yield Finding(path.name, str(error))


class FiniteValues(Check):
    """No weight, buffer, moment or loss is NaN; no weight, moment or loss is infinite."""

    level = STANDARD
    kinds = ("trajectory", "checkpoint", "model")

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each tensor or loss."""
        for path in subject.files:
            tensors, facts = read_tensors(path, file_kind(path, subject), verify=False)
            bounded = {name for name, *_ in facts["layout"]} if "layout" in facts else None
            for name, tensor in tensors.items():
                strict = name in bounded if bounded is not None else not name.startswith(_MAY_BE_INFINITE)
                if (value := _not_finite(tensor, strict)) is not None:
                    yield Finding(path.name, f"{shown(name)} contains {value}; record or train again with a lower lr")
            for name, number in _losses(facts):
                if is_number(number) and not math.isfinite(number):
                    yield Finding(path.name, f"its {shown(name)} is {number}; record or train again with a lower lr")


class CheckpointState(Check):
    """A checkpoint can be taken apart, has the counters of its phase, and a running average where it states one."""

    level = STANDARD
    kinds = ("checkpoint",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each part that is missing or does not fit."""
        state, facts = load_checkpoint(subject.path)
        if {"run", "optimizer", "controller"}.isdisjoint(facts):
            raise CannotCheck("it is of a training of your own, whose state only you know")
        rules = {"rollout": COUNT} if "controller" in facts else {"epoch": COUNT, "step": COUNT}
        if violation := first_violation(state, rules):
            yield Finding(subject.name, f"of its state, {violation}. Resume from another checkpoint")
        elif "optimizer" in facts:
            yield from _average_of_optimizer(subject.path, state)
        elif "run" in facts:
            yield from _average_of_target(subject.path, state, facts["run"])


def _not_finite(tensor: Tensor, strict: bool) -> str | None:
    """What a tensor contains that it must not; None if nothing.

    Args:
        strict: whether it must not contain infinity.
    """
    if not tensor.is_floating_point() or is_finite(tensor):
        return None
    if bool(torch.isnan(tensor).any()):
        return "NaN"
    return "infinity" if strict else None


def _losses(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Losses and metrics that a file states, by name."""
    training = facts.get("training")
    stated = [training.get(name) for name in ("metrics", "untrained")] if isinstance(training, Mapping) else []
    for values in (facts.get("losses"), *stated):
        if isinstance(values, Mapping):
            yield from values.items()


def _average_of_optimizer(path: Path, state: Mapping[str, Any]) -> Iterator[Finding]:
    count, weights = state.get("averaged_count"), state.get("averaged")
    if not isinstance(weights, Mapping):
        yield Finding(path.name, "it has no averages of the weights, which make the predictions; copy it again")
    elif weights and state["step"] > state.get("skipped", 0) and (count is None or int(count) < 1):
        yield Finding(
            path.name,
            f"its weights were updated {state['step']} times, and their averages never; resume from another checkpoint",
        )


def _average_of_target(path: Path, state: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[Finding]:
    decay = run.get("averaging", 0)
    average = state.get("average")
    if not decay or not state["step"]:
        return
    if not isinstance(average, Mapping) or not average.get("updates") or not average.get("tensors"):
        yield Finding(
            path.name,
            f"its run averages the weights with the decay {decay:g}, and the state has no average. Start the run again "
            "with --overwrite",
        )
    elif average.get("decay") != decay:
        yield Finding(
            path.name, f"its average has the decay {shown(average.get('decay'))}; its run says {decay:g}. Copy it again"
        )
