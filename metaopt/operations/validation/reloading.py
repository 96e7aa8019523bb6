"""Deep checks: what a file describes is built again, and what it states is measured again."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...adapters.lora import insert_adapters
from ...core.config import untrusted_code
from ...core.errors import FileFormatError, InvalidConfig, LayoutMismatch, TaskDataError, UnknownName, UntrustedCode
from ...core.rng import isolated
from ...generative import GenerativeOptimizer
from ...generative.files import load_optimizer_file
from ...growth.growth_seed import fully_grown
from ...growth.policy import build_policy, load_policy
from ...metatraining.problem import InnerProblem
from ...metatraining.trained import FACTS, TrainedOptimizer
from ...nested.carried_memory import carries_memories
from ...targets import get_target_model, names_code
from ...tasks.measure import batches_of, mean_loss
from ...trajectories import Trajectory
from ...trajectories.checkpoint import load_checkpoint
from ...trajectories.recorder import SNAPSHOT
from ...weights.building import build_as_listed, check_finite, check_state
from ...weights.facts import TARGET_RUN, first_violation
from ...weights.files import kind_of, read_facts, read_listed
from ...weights.layout import Layout, WeightTensor
from ...weights.model_files import copy_into
from .base import DEEP, CannotCheck, Check, Finding
from .subjects import Subject

_RELATIVE = 1e-4  # of a loss that is measured again: sums have another order on another machine
_RELATIVE_OF_ROUNDED = 0.05  # the same for weights that were rounded to 16 bits
_TOY = Layout((WeightTensor("0.weight", (8, 4), "float32"), WeightTensor("0.bias", (8,), "float32")))


class MeasuredLosses(Check):
    """The validation loss of each snapshot is that which its weights have on the data of its task."""

    level = DEEP
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each loss that differs."""
        trajectory = subject.trajectory
        stated = [index for index in range(len(trajectory)) if "val_loss" in trajectory.losses(index)]
        if not {"task", "target_model"} <= trajectory.run.keys():
            raise CannotCheck("its run names no task and network, from which its losses could be measured")
        if trajectory.averaging:
            raise CannotCheck("its snapshots are running averages, and the losses are of the weights themselves")
        if not stated:
            raise CannotCheck("no snapshot states a validation loss")
        with isolated():
            for _, start, stop, _ in trajectory.segments:
                if indices := [index for index in stated if start <= index < stop]:
                    yield from _other_losses(trajectory, indices, subject)


class Reload(Check):
    """The network, the optimizer or the policy of a file can be built, and has its weights.

    A generative optimizer must return the last snapshot exactly at a horizon of zero.
    """

    level = DEEP
    kinds = ("checkpoint", "model")

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for a file that cannot be used."""
        path = subject.path
        kind, facts = kind_of(path), read_facts(path, kind_of(path))
        if kind == "policy":
            load_policy(path)
        elif kind == "optimizer" or "optimizer" in facts:
            yield from _optimizer_findings(path, facts)
        elif kind == "checkpoint" and "policy" in facts:
            state, _ = load_checkpoint(path)
            build_policy(path, facts["policy"], state["policy"])
        elif kind == "checkpoint" and "target_model" in facts.get("run", {}):
            _rebuild_target(path, subject.settings.trust_config)
        else:
            raise CannotCheck("it does not describe a network")


def _optimizer_findings(path: Path, facts: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        optimizer = TrainedOptimizer.from_checkpoint(path).optimizer if FACTS in facts else load_optimizer_file(path)
    except FileFormatError as error:
        if isinstance(error.__cause__, UnknownName):  # of a package that is not installed here
            raise CannotCheck(str(error)) from error
        raise
    if not _holds(optimizer):
        yield Finding(
            path.name,
            "at a horizon of zero it does not return the last snapshot exactly; expected the same weights. Its file "
            "belongs to another version, or is damaged: train or download it again",
        )


def _holds(optimizer: GenerativeOptimizer) -> bool:
    history = torch.linspace(-1.0, 1.0, 3 * _TOY.size).reshape(1, 3, _TOY.size)
    times = torch.tensor([[0.0, 10.0, 20.0]])
    with torch.no_grad():
        return torch.equal(optimizer.predict(history, times, torch.tensor([20.0]), _TOY)[0], history[0, -1])


def _rebuild_target(path: Path, trusted: bool) -> None:
    """Build the network of a checkpoint of phase 1, and compare it with the weights.

    Raises:
        LayoutMismatch, FileFormatError: it has other weights, or the facts describe none.
        CannotCheck: it is code that the user does not trust.
    """
    state, facts = load_checkpoint(path)
    run, weights = facts["run"], state.get("model")
    if violation := first_violation(run, TARGET_RUN):
        raise FileFormatError(f"the facts of {path} do not describe its network: {violation}. Copy it again")
    if names_code(run["target_model"]) and not trusted:
        raise CannotCheck(str(untrusted_code(path, "target_model", run["target_model"])))
    if not isinstance(weights, Mapping):
        raise FileFormatError(f"{path} has no weights of a network; copy it again")
    build = _builder(run, state)
    with isolated():
        try:
            network = build_as_listed(build, weights)
            check_state(type(network).__name__, network.state_dict(), weights)
            check_finite({name: weights[name] for name, _ in network.named_parameters()})
        except UnknownName as error:
            raise CannotCheck(str(error)) from error


def _builder(run: Mapping[str, Any], state: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """What builds the network of a run, with its adapters and its growth seeds."""
    if state.get("growth") is not None:
        raise CannotCheck("its network grows, which only a resumed training builds; resume it to check it")

    def build() -> nn.Module:
        network = fully_grown(get_target_model(run["target_model"], **run["target_config"]), run.get("grown_as", []))
        return insert_adapters(network, run["adapter"]) if "adapter" in run else network

    return build


def _other_losses(trajectory: Trajectory, indices: list[int], subject: Subject) -> Iterator[Finding]:
    """The snapshots of one segment whose validation loss is not the stated one."""
    problem = _problem(trajectory.part_of(indices[0]), subject)
    network = problem.network()
    if carries_memories(network):
        raise CannotCheck("its network carries memories, which snapshots do not contain")
    frozen = trajectory.frozen()
    for index in indices:
        weights = trajectory.segment(index).layout.unflatten(trajectory.weights(index))
        copy_into(network, {**frozen, **trajectory.buffers(index), **weights})
        measured = mean_loss(network, problem.task, batches_of(problem.task.splits["validation"], problem.task))
        stated = trajectory.losses(index)["val_loss"]
        if not math.isclose(measured, stated, rel_tol=_tolerance(trajectory, index), abs_tol=1e-6):
            yield Finding(
                trajectory.snapshots[index].path.name,
                f"its validation loss is {measured:.6g}, and it states {stated:.6g}: weights, facts or data "
                "are others than those of the recording. Copy the trajectory again, or record it again",
            )


def _problem(trajectory: Trajectory, subject: Subject) -> InnerProblem:
    """The task and the network of a trajectory.

    Raises:
        CannotCheck: data is missing, a name is unknown here, or the network is code that the user does not trust.
        TrajectoryError, LayoutMismatch: the facts do not describe the snapshots.
    """
    settings = subject.settings
    try:
        return InnerProblem.from_trajectory(
            trajectory,
            settings.data_dir,
            trusted=settings.trust_config,
            advice="Give data_dir if its data has moved",
        )
    except (UntrustedCode, UnknownName, TaskDataError) as error:
        raise CannotCheck(str(error)) from error
    except (InvalidConfig, LayoutMismatch) as error:
        raise LayoutMismatch(f"{error}. The facts are not those of the weights: copy the trajectory again") from error


def _tolerance(trajectory: Trajectory, index: int) -> float:
    """How much a loss may differ: more if the weights were rounded to 16 bits."""
    listed, _ = read_listed(trajectory.snapshots[index].path, SNAPSHOT)
    tensors = trajectory.segment(index).layout.tensors
    exact = all(str(listed[each.name].dtype) == f"torch.{each.dtype}" for each in tensors)
    return _RELATIVE if exact else _RELATIVE_OF_ROUNDED
