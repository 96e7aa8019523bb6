"""One chunk's write as a pure function: `titans_pytorch.NeuralMemory` without projections, norms, gates and weights.

This module has all that depends on the version of that library. What it does here: heads, chunks, and the recurrences
of S and M. What is replaced, and why:

- Projections and norms: the caller gives keys, values and rates, side by side as the columns of one tensor.
- The function of the gradients. Its own has the mean over the width as loss, where ℓ is a sum, and a norm and a
  residual connection around M. It also places weights in a module while it computes, which no two threads may do.
- Its limit of gradient norms. It multiplies a gradient g by max/2 · (1 + tanh(2‖g‖/max)) / ‖g‖: small gradients become
  half as large as the limit, and zero becomes not a number. Here only what is above the limit is scaled.
"""

import warnings
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ..core.dependencies import import_extra

NamedLayers = dict[str, Tensor]
"""Weights by their names in the library, in the order of the layers."""


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


_built: dict[Design, Any] = {}
"""A plain dict, because `torch.compile` does not use the entries of `functools.cache`."""


def library_memory(design: Design) -> Any:
    """A NeuralMemory without parameters and state: weights, momentum, keys, values and rates are given at each call.

    Raises:
        InvalidConfig: titans-pytorch is missing.
    """
    if design not in _built:
        _built[design] = _build(design)
    return _built[design]


def mlp(layers: NamedLayers, tokens: Tensor) -> Tensor:
    """M, for layers of one head, or of several with their tokens in the first dimension."""
    for number, layer in enumerate(layers.values()):
        tokens = (torch.nn.functional.gelu(tokens) if number else tokens) @ layer
    return tokens


def gradients_of(layers: NamedLayers, keys: Tensor, rates: Tensor, values: Tensor) -> tuple[NamedLayers, Tensor]:
    """The gradients Σ_t θ_t ∇ℓ of each row, a chunk, and ℓ of each of its tokens."""

    def weighted(layers: NamedLayers, keys: Tensor, rates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        losses = (mlp(layers, keys) - values).square().sum(-1)
        return (rates * losses).sum(), losses

    return vmap(grad(weighted, has_aux=True))(layers, keys, rates, values)


def _build(design: Design) -> Any:
    titans = _titans_pytorch()
    with torch.device("meta"):  # its weights are never used
        memory = titans.NeuralMemory(
            dim=design.width,
            dim_head=design.width // design.heads,
            heads=design.heads,
            chunk_size=design.chunk,
            adaptive_step_transform=_unchanged,
            qkv_receives_diff_views=True,
            pre_rmsnorm=False,
        )
    memory.to_keys = _Columns(slice(0, design.width))
    memory.to_values = _Columns(slice(design.width, 2 * design.width))
    memory.to_adaptive_step = _PerHead(design.rate(0))
    memory.to_momentum = _Gate(design.rate(1), orders=True)
    memory.to_decay_factor = _Gate(design.rate(2))
    memory.per_sample_grad_fn = partial(_limited_gradients, design.max_grad_norm)
    return memory


def _titans_pytorch() -> Any:
    # What it imports computes numbers, which is impossible while a network is built on the meta device.
    with torch.device("cpu"), warnings.catch_warnings():
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


def _limited_gradients(
    limit: float | None, layers: NamedLayers, keys: Tensor, rates: Tensor, values: Tensor
) -> tuple[NamedLayers, Tensor]:
    """Limit the norm of the gradient of all layers together, which keeps its direction.

    A gradient whose squared norm is not finite becomes not a number: divided by its norm it would be zero, and its
    chunk would seem to be stored.
    """
    gradients, losses = gradients_of(layers, keys, rates, values)
    if limit is None:
        return gradients, losses
    square = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients.values()]).sum(0)
    scale = (limit / square.clamp(min=limit**2).sqrt()).where(square.isfinite(), torch.nan)
    return {name: gradient * scale[:, None, None] for name, gradient in gradients.items()}, losses


def _unchanged(rates: Tensor) -> Tensor:
    return rates
