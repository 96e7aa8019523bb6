"""Training of growth seeds on features of the host, which it leaves as they are; and their losses."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.errors import InvalidConfig
from ..core.rng import isolated
from ..targets.hosts import Host
from ..targets.taps import tapped
from ..tasks import Batch, Task
from ..tasks.measure import mean_loss
from .growth_seed import GrowthSeed, compile_again, seed_of


class Features:
    """The features at some taps in the latest forward pass, without a history of gradients.

    Copies of the network are not read.

    Args:
        model: the network.
        taps: names of the taps; a seed is trained at each.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self._found: dict[str, Tensor | None] = dict.fromkeys(taps)  # with all keys, as compiled networks expect it
        self._handles = [self._read(tap, model.get_submodule(tap)) for tap in self._found]
        if self._handles:
            compile_again()

    def __getitem__(self, tap: str) -> Tensor:
        """The features at a tap.

        Raises:
            InvalidConfig: no forward pass has reached it.
        """
        features = self._found.get(tap)
        if features is None:
            raise InvalidConfig(
                f"no forward pass has reached {tap} since the last change of a slot; call after_backward right after "
                "the forward and the backward pass of the same step"
            )
        return features

    def remove(self) -> None:
        """Stop reading, and drop what was read."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            compile_again()
        self._handles.clear()
        self._found.clear()

    def _read(self, tap: str, tapped_module: nn.Module) -> RemovableHandle:
        def read(module: nn.Module, _inputs: Any, output: Any) -> None:
            if module is tapped_module:  # a copy of the network has this hook, too
                self._found[tap] = (output[0] if isinstance(output, tuple) else output).detach()

        return tapped_module.register_forward_hook(read)


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
    with isolated(), _buffers_restored(model, seed), torch.enable_grad():
        outputs = _continued(model, batch.inputs, tap, features + seed.delta(features))
        loss = task.loss(outputs, batch.labels)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return loss.detach()


class SeedLosses(NamedTuple):
    """Losses of a network and its growth seed, in evaluation mode.

    Attributes:
        now: that of the network as it is.
        with_it: that with the seed, as if α were 1.
        without: that without the seed.
    """

    now: float
    with_it: float
    without: float


def seed_losses(model: nn.Module, task: Task, examples: Batch, tap: str, *, is_blended: bool) -> SeedLosses:
    """Measure the losses of a network with and without its growth seed, with as few forward passes as possible.

    Args:
        tap: the tap of the seed.
        is_blended: whether the seed changes the outputs of the network.
    """
    seed, now = seed_of(model, tap), mean_loss(model, task, [examples])
    if not is_blended:
        with tapped(model, {tap: lambda features: features + seed.delta(features)}):
            return SeedLosses(now, mean_loss(model, task, [examples]), now)

    def at(value: float) -> float:
        if float(seed.alpha) == value:
            return now
        with _alpha(seed, value):
            return mean_loss(model, task, [examples])

    return SeedLosses(now, at(1.0), at(0.0))


def _continued(model: nn.Module, inputs: Tensor, tap: str, features: Tensor) -> Tensor:
    """The outputs of a network whose features at a tap are replaced."""
    if isinstance(model, Host) and tap in model.injection_points:
        return model.forward_from_layer(features, model.injection_points[tap].after_layer_idx + 1)
    with tapped(model, {tap: lambda _: features}):
        return model(inputs)


@contextmanager
def _buffers_restored(model: nn.Module, seed: GrowthSeed) -> Iterator[None]:
    """Restore the buffers after the block, but those of the seed: a second forward pass would count twice in them."""
    own = {*seed.modules()}
    saved = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        if module not in own
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in saved:
            module._buffers[name] = buffer.copy_(value)  # it may have been replaced by another


@contextmanager
def _alpha(seed: GrowthSeed, value: float) -> Iterator[None]:
    before = seed.alpha.clone()
    seed.alpha.fill_(value)
    try:
        yield
    finally:
        seed.alpha.copy_(before)
