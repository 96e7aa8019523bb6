"""Runs a probe so that nothing of it remains in the networks, in their gradients and in the random numbers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.devices import device_of
from ..core.errors import Diverged, InvalidConfig, LayoutMismatch
from ..core.rng import generator, isolated
from ..core.text import shown
from ..tasks import Batch, Split, Task
from ..tasks.measure import in_evaluation_mode
from .base import Probe, ProbeResult

Hook = Callable[[nn.Module, Any, Any], None]
"""What is called with a module, its inputs and its output."""


def run_probe(probe: Probe, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
    """Measure with a probe, and leave weights, modes, gradients and random states as they were.

        import torch
        from metaopt import get_target_model, load_task
        from metaopt.probes import get_probe, run_probe, sample_examples

        task = load_task("digits")
        before = get_target_model("MLP", task.model_facts, widths=(8,))
        after = get_target_model("MLP", task.model_facts, widths=(8,))
        after.load_state_dict(before.state_dict())
        with torch.no_grad():
            after.layers[1].weight *= 1.5
        result = run_probe(get_probe("delta-budgets"), before, after, task, sample_examples(task, "guard", 32))
        assert abs(result.values["largest_change"] - 0.5) < 1e-6

    Args:
        before, after: networks of one architecture, on one device.
        examples: moved to the device of the networks.
    Raises:
        InvalidConfig: the probe does not apply to the network, or the examples have nothing to measure.
        LayoutMismatch: the networks have different weights.
        Diverged: a value is not finite.
    """
    check_alike(before, after)
    if (reason := why_not(probe, after, task)) is not None:
        raise InvalidConfig(f"{type(probe).__name__} does not apply to {type(after).__name__}: {reason}")
    if not len(examples.labels):
        raise InvalidConfig("there are no examples; give one or more")
    with undisturbed(before, after):
        result = probe.measure(before, after, task, examples.to(device_of(after)))
    wrong = {name: value for name, value in result.values.items() if not math.isfinite(value)}
    if wrong:
        raise Diverged(f"{type(probe).__name__} gives {shown(wrong)}; expected finite numbers, of finite weights")
    return result


def why_not(probe: Probe, model: nn.Module, task: Task) -> str | None:
    """Why a probe does not apply to a network, as the end of a sentence; None if it does."""
    with undisturbed(model):
        return probe.reason(model, task)


def sample_examples(task: Task, split: Split, count: int) -> Batch:
    """Examples of a split for probes: always the same ones; the whole split if it has fewer.

    Raises:
        InvalidConfig: `count` is not positive, or there is no such split.
    """
    if count < 1 or split not in task.splits:
        splits = ", ".join(task.splits)
        raise InvalidConfig(f"{count} examples of {shown(split)}; expected 1 or more, of {splits}")
    return task.sample(split, count, generator(0))


def check_alike(before: nn.Module, after: nn.Module) -> None:
    """Check that two networks have weights of the same names and shapes.

    Raises:
        LayoutMismatch: they do not; the message has the first difference.
    """
    shapes, others = ({name: [*each.shape] for name, each in one.named_parameters()} for one in (before, after))
    for name in [*shapes, *others]:
        if shapes.get(name) != others.get(name):
            found = [f"{shapes[name]}" if name in shapes else "missing", f"{others.get(name, 'missing')}"]
            raise LayoutMismatch(
                f"{shown(name)} is {found[0]} before and {found[1]} after the change; probes compare networks of one "
                "architecture"
            )


@contextmanager
def undisturbed(*models: nn.Module) -> Iterator[None]:
    """A block without gradients, in evaluation mode, after which modes and random states are as before."""
    with ExitStack() as stack:
        stack.enter_context(isolated())
        stack.enter_context(torch.no_grad())
        for model in models:
            stack.enter_context(in_evaluation_mode(model))
        yield


@contextmanager
def watching(hooks: Mapping[nn.Module, Hook]) -> Iterator[None]:
    """Call functions after each forward pass of some modules in the block: `hook(module, inputs, output)`."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def slices(examples: Batch, task: Task) -> Iterator[Batch]:
    """The examples in order, in batches of at most `task.rows_at_once`."""
    rows = task.rows_at_once
    return (Batch(*(each[start : start + rows] for each in examples)) for start in range(0, len(examples.labels), rows))


def floats(values: Tensor) -> list[float]:
    """The numbers of a vector, in one transfer from its device."""
    found: list[float] = values.detach().float().cpu().tolist()
    return found


def ratio(part: float, whole: float) -> float | None:
    """part / whole: 1 for two zeros, and None for a zero alone."""
    return part / whole if whole else None if part else 1.0


def present(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that exist."""
    return {name: value for name, value in values.items() if value is not None}


def column(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """The values of a column that exist."""
    return [row[name] for row in rows if row[name] is not None]
