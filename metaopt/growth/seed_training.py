"""Training of growth seeds on features of the host, which it leaves as they are; and their losses."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.rng import isolated
from ..targets.hosts import Host
from ..targets.taps import tapped
from ..tasks import Batch, Task
from ..tasks.measure import mean_loss
from .growth_seed import GrowthSeed, seed_of


class Features:
    """The features at some taps in the latest forward pass, without a history of gradients.

    Args:
        model: the network.
        taps: names of the taps; a seed is trained at each.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self._found: dict[str, Tensor] = {}
        self._handles = [model.get_submodule(tap).register_forward_hook(self._reader(tap)) for tap in taps]

    def __getitem__(self, tap: str) -> Tensor:
        return self._found[tap]

    def remove(self) -> None:
        """Stop reading, and drop what was read."""
        for handle in self._handles:
            handle.remove()
        self._found.clear()

    def _reader(self, tap: str) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._found[tap] = (output[0] if isinstance(output, tuple) else output).detach()

        return read


def seed_gradients(model: nn.Module, task: Task, batch: Batch, tap: str, features: Tensor) -> Float[Tensor, ""]:
    """Set the gradients of a growth seed to those of the loss with it, and return that loss.

    It is a second forward pass from the tap on: δ sees features of the host without a history of gradients, and what
    comes after the tap sees h + δ(h). The gradients, buffers and random numbers of the host stay as they are, so that
    the host trains as without the seed, bit for bit.

    Args:
        batch: the batch of this step, on the device of the network.
        tap: the tap of the seed.
        features: the features at the tap in the forward pass of this step.
    """
    seed = seed_of(model, tap)
    parameters = [parameter for parameter in seed.parameters() if parameter.requires_grad]
    with isolated(), _buffers_restored(model), torch.enable_grad():
        outputs = _continued(model, batch.inputs, tap, features + seed.delta(features))
        loss = task.loss(outputs, batch.labels)
        gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return loss.detach()


def losses_with_and_without(
    model: nn.Module, task: Task, examples: Batch, tap: str, *, is_blended: bool
) -> tuple[float, float]:
    """The loss of a network with its growth seed, α being 1, and its loss without it, in evaluation mode.

    Args:
        tap: the tap of the seed.
        is_blended: whether the seed changes the outputs of the network.
    """
    seed = seed_of(model, tap)
    if is_blended:
        with _alpha(seed, 1.0):
            with_it = mean_loss(model, task, [examples])
        with _alpha(seed, 0.0):
            return with_it, mean_loss(model, task, [examples])
    with tapped(model, {tap: lambda features: features + seed.delta(features)}):
        with_it = mean_loss(model, task, [examples])
    return with_it, mean_loss(model, task, [examples])


def _continued(model: nn.Module, inputs: Tensor, tap: str, features: Tensor) -> Tensor:
    """The outputs of a network whose features at a tap are replaced."""
    if isinstance(model, Host) and tap in model.injection_points:
        return model.forward_from_layer(features, model.injection_points[tap].after_layer_idx + 1)
    with tapped(model, {tap: lambda _: features}):
        return model(inputs)


@contextmanager
def _buffers_restored(model: nn.Module) -> Iterator[None]:
    """Restore all buffers after the block: a second forward pass in training mode would count twice in them."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)


@contextmanager
def _alpha(seed: GrowthSeed, value: float) -> Iterator[None]:
    before = seed.alpha.clone()
    seed.alpha.fill_(value)
    try:
        yield
    finally:
        seed.alpha.copy_(before)
