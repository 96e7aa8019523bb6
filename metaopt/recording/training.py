"""Training steps: any network, any task, any optimizer of PyTorch, without files or tracking."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from ..core.errors import Diverged, InvalidConfig
from ..core.text import shown
from ..tasks import Batch, Task


def pick_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "auto" for CUDA where it is available.

    Raises:
        InvalidConfig: CUDA is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfig(f"device is {shown(name)}, but this torch finds no CUDA device; give cpu or auto")
    return torch.device(name)


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
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, batch: Batch, device: torch.device
) -> float:
    """Train on one batch; returns the loss before the step."""
    model.train()
    batch = batch.to(device)

    def closure() -> float:  # some optimizers, such as LBFGS, evaluate the loss several times per step
        optimizer.zero_grad()
        loss = task.loss(model(batch.inputs), batch.labels)
        loss.backward()
        return loss.item()

    return optimizer.step(closure)
