"""Writes that are left out because what they compute is not finite: they change neither outputs nor gradients."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Parts = tuple[Float[Tensor, "batch ..."], ...]
"""Tensors with a row for each sequence."""


def begin(inputs: Parts) -> tuple[Parts, Tensor]:
    """The inputs of a write, and a gate that `end` needs. No sequence may use the inputs of another.

        (weights, keys), gate = begin((old, keys))
        (weights,), are_valid = end(gate, (write(weights, keys),), (old,))

    `torch.where` alone keeps numbers that are not finite out of the results, but not out of the gradients: there, such
    a number times a gradient of zero is not a number. It would have to be replaced before it is used, but whether a
    result is finite is known after its computation. So the backward pass tells: `end` sends which sequences are valid
    as the gradient of the gate, which has no other use, and here the gradients of the others become zero. Nothing is
    computed twice, and the host waits for nothing.
    """
    *parts, gate = _Begin.apply(*inputs)
    return tuple(parts), gate


def end(gate: Tensor, new: Parts, old: Parts) -> tuple[Parts, Bool[Tensor, " batch"]]:
    """The results of a write, or what was there before in sequences where they are not finite; which ones are valid."""
    valid = torch.stack([part.flatten(1).isfinite().all(1) for part in new]).all(0)
    chosen = (torch.where(_rows(valid, after), after, before.to(after)) for after, before in zip(new, old, strict=True))
    return _End.apply(gate, valid, *chosen), valid


class _Begin(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return *(part.view_as(part) for part in inputs), inputs[0].new_zeros(len(inputs[0]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        *parts, valid = gradients
        return tuple(torch.where(_rows(valid > 0, part), part, 0.0) for part in parts)


class _End(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gate: Tensor, valid: Tensor, *outputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.view_as(part) for part in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        gate, valid, *_ = inputs
        ctx.save_for_backward(valid.to(gate))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (valid,) = ctx.saved_tensors
        return valid, None, *gradients


def _rows(valid: Bool[Tensor, " batch"], like: Tensor) -> Bool[Tensor, "batch ..."]:
    return valid.view(-1, *[1] * (like.dim() - 1))
