"""The weights and buffers of the network that a nowcast changes, and how they are restored exactly."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import LayoutMismatch
from ..weights.layout import Layout
from ..weights.selection import trainable
from .buffers import SavedBuffers
from .distributed import broadcast_in_place


class Saved(NamedTuple):
    """Copies of a network's trainable weights, in full precision, and of its buffers, such as running statistics."""

    weights: list[Tensor]
    buffers: SavedBuffers


class ModelState:
    """The trainable weights and the buffers of a network.

    Args:
        model: the network, or a wrapper of `torch.compile` or `DistributedDataParallel` around it. Names of weights are
            those of the network without the wrapper.
    Attributes:
        model: the network without the wrapper.
        layout: names and shapes of the trainable weights.
        named: the trainable tensors by name, without duplicates.
        weights: the same tensors.
    Raises:
        LayoutMismatch: the network has no trainable weights, or one that cannot be forecast; or its weights are sharded
            over processes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        _check_present(self.model)
        self.layout = Layout.of(self.model)
        self.named: dict[str, Tensor] = dict(trainable(self.model))
        self.weights = list(self.named.values())

    @property
    def device(self) -> torch.device:
        """The device of the network's first weights."""
        return self.weights[0].device

    def check_moved_by(self, base: torch.optim.Optimizer) -> None:
        """Check that a base optimizer moves exactly these tensors.

        Raises:
            LayoutMismatch: it moves more or fewer.
        """
        ours = {id(parameter) for parameter in self.weights}
        moved = {id(p) for group in base.param_groups for p in group["params"] if p.requires_grad}
        missing = [name for name, parameter in self.named.items() if id(parameter) not in moved]
        if missing or moved - ours:
            raise LayoutMismatch(
                f"{type(base).__name__} moves {len(moved - ours)} tensors that are not trainable weights of "
                f"{type(self.model).__name__}, and leaves out {len(missing)} that are "
                f"({', '.join(missing[:3]) or 'none'}). Build it over this model's parameters, and freeze those that "
                "it should not move with requires_grad_(False)"
            )

    def check_unchanged(self) -> None:
        """Check that the network's trainable weights are still the same tensors.

        Raises:
            LayoutMismatch: some were added, removed, replaced, frozen or unfrozen.
        """
        now = dict(trainable(self.model))
        changed = [name for name in {**self.named, **now} if self.named.get(name) is not now.get(name)]
        if changed:
            raise LayoutMismatch(
                f"{type(self.model).__name__} changed after Nowcast was built: {', '.join(changed[:3])} "
                f"({len(changed)} in all) added, removed, replaced, frozen or unfrozen. No nowcast took place and "
                "nothing is lost; build a new Nowcast around the base optimizer for the network as it is now"
            )

    def write(self, flat: Float[Tensor, " weights"] | None) -> None:
        """Replace the weights, in all processes by those of rank 0.

        Args:
            flat: the new weights; None on other ranks [raw units].
        """
        if flat is not None:
            self.layout.write(self.model, flat)
        broadcast_in_place(self.weights)

    @torch.no_grad()
    def add(self, flat: Float[Tensor, " weights"] | None) -> None:
        """Add a change to the weights, in all processes that of rank 0.

        Args:
            flat: the change; None on other ranks [raw units].
        """
        if flat is not None:
            for weights, change in zip(self.weights, self.layout.split(flat), strict=True):
                weights += change.reshape(weights.shape).to(weights)
        broadcast_in_place(self.weights)

    def save(self) -> Saved:
        """Copy everything that a nowcast may change."""
        return Saved([weights.detach().clone() for weights in self.weights], self.save_buffers())

    def restore(self, saved: Saved) -> None:
        """Restore what `save` copied."""
        _copy(saved.weights, self.weights)
        self.restore_buffers(saved.buffers)

    def save_buffers(self) -> SavedBuffers:
        """Copy the buffers."""
        return SavedBuffers(self.model)

    def restore_buffers(self, saved: SavedBuffers) -> None:
        """Restore what `save_buffers` copied."""
        saved.restore()

    @contextmanager
    def restored_on_error(self) -> Iterator[Saved]:
        """Restore the network if the block raises, for example in the guard; gives the copies."""
        saved = self.save()
        try:
            yield saved
        except BaseException:
            self.restore(saved)
            raise


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile` and `DistributedDataParallel`."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile's
            model = inner
        else:
            return model


@contextmanager
def not_compiled() -> Iterator[None]:
    """Run compiled networks as they were written. Without one, nothing of the compiler is imported."""
    with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
        yield


def moved_by(base: torch.optim.Optimizer) -> list[int]:
    """The identities of the parameters of a base optimizer, in its order."""
    return [identity for group in base.param_groups for identity in map(id, group["params"])]


def _check_present(model: nn.Module) -> None:
    for name, parameter in trainable(model):
        if parameter.is_meta:
            raise LayoutMismatch(
                f"{name} of {type(model).__name__} is on the meta device: it has no values. Move the network to a "
                "device with to_empty(device=…) and initialise or load it before Nowcast is built"
            )
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise LayoutMismatch(
            f"the weights of {type(model).__name__} are sharded over processes (FSDP). A forecast needs whole weights: "
            "use DistributedDataParallel"
        )


@torch.no_grad()
def _copy(values: list[Tensor], tensors: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
