"""Inner training: any network, any task, any optimizer of PyTorch. It writes nothing and tracks nothing."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from ..core.errors import Diverged, InvalidConfig
from ..tasks import Batch, Task


def pick_device(name: str) -> torch.device:
    """The device behind "cpu", "cuda" or "auto" (CUDA where there is one).

    Raises:
        InvalidConfig: CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfig(f"device is {name!r}, but this torch finds no CUDA device; give cpu or auto")
    return torch.device(name)


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, batches: Iterable[Batch], device: torch.device
) -> Iterator[float]:
    """Train on batches, giving the loss of each as it stood before its step.

    Raises:
        Diverged: a loss is not finite.
    """
    for batch in batches:
        loss = train_step(model, optimizer, task, batch, device)
        check_loss(loss)
        yield loss


def check_loss(loss: float) -> None:
    """Refuse a training loss that is not finite.

    Raises:
        Diverged: it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss}")


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, batch: Batch, device: torch.device
) -> float:
    """Train on one batch; its loss before the step."""
    model.train()
    batch = batch.to(device)

    def closure() -> float:  # some optimizers, such as LBFGS, ask for the loss more than once in a step
        optimizer.zero_grad()
        loss = task.loss(model(batch.inputs), batch.labels)
        loss.backward()
        return loss.item()

    return optimizer.step(closure)
