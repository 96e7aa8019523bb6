"""Evaluation: losses and metrics of a network on the examples of a task, outside training."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.devices import CPU, device_of
from ..core.errors import InvalidConfig, MetaoptError
from ..core.rng import isolated
from ..core.text import shortened
from ..nested.carried_memory import carries_memories
from .base import Batch, Examples, Task

_VALUES_AT_ONCE = 40_000
"""Values in the inputs of a batch on the CPU. The activations of larger batches exceed its caches: twice the time."""

_EXAMPLES_TO_CHECK = 32
"""Examples on which a network is tried before a training."""


def measure(model: nn.Module, task: Task, batches: Iterable[Batch]) -> dict[str, float]:
    """The loss ("loss") and the metrics of a network in evaluation mode, means over all examples.

        import metaopt
        from metaopt.tasks.measure import batches_of, measure

        task = metaopt.load_task("digits")
        model = metaopt.get_target_model("MLP", task.model_facts)
        figures = measure(model, task, batches_of(task.splits["validation"], task))  # {"loss": 2.33, "accuracy": 0.12}

    Args:
        batches: moved to the device of the network.
    """
    sums: dict[str, float] = defaultdict(float)
    count = 0
    for outputs, labels in _outputs(model, batches):
        for name, value in {"loss": task.loss(outputs, labels), **task.metrics(outputs, labels)}.items():
            sums[name] += float(value) * len(outputs)
        count += len(outputs)
    means = {name: value / count for name, value in sums.items()}
    return {**means, **task.metrics_of_loss(means["loss"])}


def batches_of(examples: Examples, task: Task, device: torch.device = CPU) -> Iterator[Batch]:
    """All examples in order, in batches of a size that is fast on the device, at most `task.rows_at_once`."""
    inputs, rows = examples[:1].inputs, task.rows_at_once
    if device.type == "cpu" and inputs.is_floating_point():
        rows = min(rows, max(_VALUES_AT_ONCE // inputs.numel(), 16))
    return examples.in_order(rows)


def mean_loss(model: nn.Module, task: Task, batches: Iterable[Batch]) -> float:
    """The mean loss of a network in evaluation mode over all examples."""
    total, count = 0.0, 0
    for outputs, labels in _outputs(model, batches):
        total += float(task.loss(outputs, labels)) * len(outputs)
        count += len(outputs)
    return total / count


def example_losses(model: nn.Module, task: Task, batches: Iterable[Batch]) -> Float[Tensor, " examples"]:
    """The loss of a network in evaluation mode on each example."""
    return torch.cat([task.losses(outputs, labels) for outputs, labels in _outputs(model, batches)])


def check_network(model: nn.Module, task: Task) -> None:
    """Check on a few examples that a network takes the inputs of a task and that the loss takes its outputs.

    Raises:
        InvalidConfig: it does not fit the data; the message has the reason. Or it carries memories from batch to batch,
            and the rows of the batches of the task do not continue each other.
    """
    if carries_memories(model) and not task.is_stream:
        raise InvalidConfig(
            f"{type(model).__name__} carries its memories from batch to batch, but batches of {type(task).__name__} do "
            "not continue each other. Set order=stream, if it is an option of the task, or carry_memory=false"
        )
    batch = task.splits["train"][:_EXAMPLES_TO_CHECK]
    try:
        with isolated():
            for outputs, labels in _outputs(model, [batch]):
                task.loss(outputs, labels)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # which reports labels out of range
    except MetaoptError:
        raise
    except Exception as error:  # of any kind: the network may be the user's own
        reason = shortened(str(error).partition("\n")[0])
        raise InvalidConfig(
            f"{type(model).__name__} does not fit the data of {type(task).__name__}: for inputs "
            f"{_described(batch.inputs)} and labels {_described(batch.labels)} it raises {type(error).__name__}: "
            f"{reason}. Choose another network or task, or other options of them"
        ) from error


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode while the block runs, then restore the mode of each module."""
    with modes_restored(model):
        model.eval()
        yield


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Restore the mode of each module after the block: training or evaluation."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _outputs(model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """The outputs of a network for each batch, with the labels."""
    device = device_of(model)
    with in_evaluation_mode(model):
        for batch in batches:
            inputs, labels = batch.to(device)
            with torch.no_grad():
                outputs = model(inputs)
            yield outputs, labels
