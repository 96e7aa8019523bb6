"""Layers with a memory, and memories that are carried from one training step to the next, on a stream."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..core.text import shown

Tokens = Float[Tensor, "batch tokens width"]

Parts = tuple[Float[Tensor, "batch ..."], ...]
"""All that a memory has stored, as tensors with a row for each sequence."""


class MemoryLayer(nn.Module, ABC):
    """A layer that maps tokens to what a memory returns for them; a token reads what earlier ones have written.

    Each sequence begins with the trained initial memory. After `carry()`, a training on a stream continues instead: in
    training mode, sequence i of a batch begins with M₀ + Δ_i, where M₀ is the initial memory and Δ_i what `write=True`
    kept of sequence i of the batch before, without a history of gradients. So M₀ learns from every batch, gradients
    end at the start of a batch (truncated backpropagation through time), and the memory follows when an optimizer or a
    nowcast changes M₀. The forward pass itself changes nothing: only `write=True` does.

    In evaluation mode, and with another number of sequences than before, each sequence begins with M₀. A chunk ends
    with its batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.carried: tuple[str, ...] = ()

    @abstractmethod
    def initial(self, rows: int) -> Parts:
        """The trained initial memory of so many sequences."""

    @abstractmethod
    def run(self, inputs: Tokens, start: Parts, write: bool) -> tuple[Tokens, Parts]:
        """What the memory returns for each token, and the memory after the last one.

        Args:
            start: the memory before the first token.
            write: whether the memory after the last token is used; if not, it may lack the last chunk.
        """

    @abstractmethod
    def surprise(self, inputs: Tokens) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of what each token writes, over all heads, in the memory at the start of its chunk."""

    def carry(self) -> None:
        """Continue the memory of each sequence from batch to batch. The state is in buffers, in no `state_dict`."""
        self.carried = tuple(f"carried_{number}" for number in range(len(self.initial(0))))
        for name, part in zip(self.carried, self.initial(0), strict=True):
            self.register_buffer(name, torch.zeros_like(part), persistent=False)

    def start(self, rows: int) -> Parts:
        """The memory with which a batch of so many sequences begins."""
        initial = self.initial(rows)
        changes = [self.get_buffer(name) for name in self.carried]
        if not self.training or not changes or len(changes[0]) != rows:
            return initial
        return tuple(part + change for part, change in zip(initial, changes, strict=True))

    def forward(self, inputs: Tokens, write: bool = False) -> Tokens:
        """What the memory returns for each token.

        Args:
            write: whether the next batch continues with what these tokens have written, if the layer carries its
                memory.
        """
        write = write and self.training and bool(self.carried)
        outputs, after = self.run(inputs, self.start(len(inputs)), write)
        if write:
            for name, part, initial in zip(self.carried, after, self.initial(len(inputs)), strict=True):
                setattr(self, name, (part - initial).detach())
        return outputs


def write_memories(model: nn.Module, inputs: Tensor) -> None:
    """Second phase of a training step: the memories of a network store the inputs, without gradients.

    The first phase is the backward pass and the step of the optimizer. The inputs are written with the updated weights.
    A network that carries its memories has a method `write_memories(inputs)`; others do not change.
    """
    write = getattr(model, "write_memories", None)
    if callable(write):
        with torch.no_grad():
            write(inputs)


def carries_memories(model: nn.Module) -> bool:
    """Whether a network continues its memories from batch to batch."""
    return bool(_buffers(model))


def carried_memories(model: nn.Module) -> dict[str, Tensor]:
    """What the memories of a network have stored since the start of the stream, by name, for a checkpoint."""
    return {name: layer.get_buffer(buffer) for name, (layer, buffer) in _buffers(model).items()}


def load_carried_memories(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Restore what `carried_memories` returned.

    Raises:
        CheckpointError: the state is of another network, or damaged.
    """
    buffers = _buffers(model)
    if set(state) != set(buffers):
        raise CheckpointError(f"carried memories {shown(sorted(state))}; expected {shown(sorted(buffers))}")
    rows = {len(value) for value in state.values()}
    for name, (layer, buffer) in buffers.items():
        value, shape = state[name], layer.get_buffer(buffer).shape[1:]
        if len(rows) > 1 or value.shape[1:] != shape or not value.isfinite().all():
            raise CheckpointError(
                f"the carried memory {name} of shape {tuple(value.shape)}; expected finite numbers of shape "
                f"{('sequences', *shape)}, with as many sequences as the others"
            )
    for name, (layer, buffer) in buffers.items():
        setattr(layer, buffer, state[name].detach().to(layer.get_buffer(buffer), copy=True))


def _buffers(model: nn.Module) -> dict[str, tuple[MemoryLayer, str]]:
    """The layer and the buffer of each part of a carried memory, by its name in the network."""
    return {
        f"{name}.{buffer}": (layer, buffer)
        for name, layer in model.named_modules()
        if isinstance(layer, MemoryLayer)
        for buffer in layer.carried
    }
