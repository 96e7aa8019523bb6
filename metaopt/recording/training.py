"""Training steps: any network, any task, any optimizer of PyTorch, without files or tracking."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import Diverged
from ..nested.carried_memory import write_memories
from ..optimizers import optimizer_step
from ..tasks import Batch, Task


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, batches: Iterable[Batch], device: torch.device
) -> Iterator[float]:
    """Train on batches; yields the loss on each batch before its step.

    Raises:
        Diverged: a loss is not finite.
    """
    for batch in batches:
        loss = train_step(model, optimizer, task, batch, device)
        check_loss(loss)
        yield loss


def check_loss(loss: float) -> None:
    """Check that a training loss is finite.

    Raises:
        Diverged: it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss}")


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    batch: Batch,
    device: torch.device,
    after_backward: Callable[[Batch], None] | None = None,
) -> float:
    """Train on one batch; returns the loss before the step. The arguments are those of `take_step`."""
    return float(take_step(model, optimizer, task, batch.to(device), after_backward))


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    batch: Batch,
    after_backward: Callable[[Batch], None] | None = None,
) -> Float[Tensor, ""]:
    """Train on a batch on the device of the network, without waiting for the device; returns the loss before it.

    Args:
        after_backward: called with the batch when the gradients are there, before the step; such as
            `Growth.after_backward`, which sets further gradients.
    """
    model.train()

    def closure() -> Tensor:  # some optimizers, such as LBFGS, evaluate the loss several times per step
        optimizer.zero_grad()
        loss = task.loss(model(batch.inputs), batch.labels)
        loss.backward()
        if after_backward is not None:
            after_backward(batch)
        return loss.detach()

    loss = optimizer_step(optimizer, closure)
    write_memories(model, batch.inputs)
    return loss
