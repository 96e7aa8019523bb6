"""`titans_pytorch.NeuralMemory` without projections, norms and gates: one chunk's write as a pure function.

This module has all that depends on the version of that library. What is replaced, and why:

- Projections of keys and values: the caller gives keys, values and rates, side by side as the columns of one tensor.
- Norms, the residual connection of the memory and the gate of its output, because they change M.
- The mean over the width in its loss: ℓ is a sum.
- Its limit of gradient norms. It multiplies a gradient g by max/2 · (1 + tanh(2‖g‖/max)) / ‖g‖: small gradients become
  half as large as the limit, and zero becomes not a number. Here only what is above the limit is scaled.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.dependencies import import_extra

Gradients = Callable[..., tuple[dict[str, Tensor], Tensor]]


class Design(NamedTuple):
    """What determines the shapes and the arithmetic of a memory; the arguments of `TitanMemory`."""

    width: int
    depth: int
    expansion: int
    heads: int
    chunk: int
    max_grad_norm: float | None

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer of a head."""
        head = self.width // self.heads
        widths = [head, *[head * self.expansion] * (self.depth - 1), head]
        return list(pairwise(widths))

    @property
    def columns(self) -> int:
        """Width of a token with its key, its value and the three rates of each head."""
        return 2 * self.width + 3 * self.heads

    def rate(self, number: int) -> slice:
        """The columns of θ (0), η (1) or α (2)."""
        start = 2 * self.width + number * self.heads
        return slice(start, start + self.heads)


@lru_cache(maxsize=64)
def library_memory(design: Design, thread: int) -> Any:
    """A NeuralMemory without parameters of its own: weights, momentum, keys, values and rates are given at each call.

    Args:
        thread: the calling thread. The library places weights in its model while it computes, so each has its own.
    Raises:
        InvalidConfig: titans-pytorch is missing.
    """
    titans = _titans_pytorch()
    head = design.width // design.heads
    with torch.device("meta"):  # these weights are never used
        memory = titans.NeuralMemory(
            dim=design.width,
            dim_head=head,
            heads=design.heads,
            chunk_size=design.chunk,
            model=titans.MemoryMLP(head, design.depth, design.expansion),
            store_memory_loss_fn=_squared_error,
            adaptive_step_transform=_unchanged,
            qkv_receives_diff_views=True,
            pre_rmsnorm=False,
            mem_model_norm_add_residual=False,
        )
    memory.to_keys = _Columns(slice(0, design.width))
    memory.to_values = _Columns(slice(design.width, 2 * design.width))
    memory.to_adaptive_step = _PerHead(design.rate(0))
    memory.to_momentum = _Gate(design.rate(1), orders=True)
    memory.to_decay_factor = _Gate(design.rate(2))
    if design.max_grad_norm is not None:
        memory.per_sample_grad_fn = _limited(memory.per_sample_grad_fn, design.max_grad_norm)
    return memory


def _titans_pytorch() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        return import_extra("titans_pytorch", "nested")


class _Columns(nn.Module):
    """Some columns of each token."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, tokens: Tensor) -> Any:
        return tokens[..., self.columns]


class _PerHead(_Columns):
    """The columns of the heads, as sequences of their own."""

    def forward(self, tokens: Tensor) -> Any:
        return super().forward(tokens).transpose(1, 2).flatten(0, 1)


class _Gate(_PerHead):
    """Rates for which the library asks by `gate(tokens).sigmoid()`, although they are rates already."""

    def __init__(self, columns: slice, orders: bool = False) -> None:
        super().__init__(columns)
        self.orders = orders

    def forward(self, tokens: Tensor) -> "_Rates":
        rates = super().forward(tokens).unsqueeze(-1)
        return _Rates(rates.unsqueeze(0) if self.orders else rates)


class _Rates(NamedTuple):
    rates: Tensor

    def sigmoid(self) -> Tensor:
        return self.rates


def _limited(gradients_of: Gradients, limit: float) -> Gradients:
    """Limit the norm of the gradient of all layers together, which keeps its direction."""

    def limited(*arguments: Any) -> tuple[dict[str, Tensor], Tensor]:
        gradients, losses = gradients_of(*arguments)
        square = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients.values()]).sum(0)
        scale = limit / square.clamp(min=limit**2).sqrt()
        return {name: gradient * scale[:, None, None] for name, gradient in gradients.items()}, losses

    return limited


def _squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    return (predicted - target).square().sum(-1)


def _unchanged(rates: Tensor) -> Tensor:
    return rates
