"""Slices: computes a long result slice by slice, so that memory is bounded by one slice, also in the backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Span = tuple[int, int]
"""Begin and end of a slice in the result."""


def in_slices(
    function: Callable[[Tensor, int], Tensor], spans: Sequence[Span], encoded: Tensor, parameters: Sequence[Tensor]
) -> Tensor:
    """Compute `function(encoded, number)` for each slice into one result [batch, length].

    Gradients flow to `encoded` and `parameters`. The backward pass computes each slice again instead of storing its
    activations. `torch.utils.checkpoint` does the same per function, but its many small results between large temporary
    tensors fragment the heap to three times their size.

    Args:
        function: computes the slice of that number, [batch, length of the slice]. It must be deterministic and must not
            use other tensors that require gradients.
        spans: the slices in order; together they cover the result.
        encoded: the input that all slices share.
        parameters: all other tensors that the function uses and that require gradients.
    """
    return _InSlices.apply(function, spans, encoded, *parameters)


class _InSlices(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor, int], Tensor], spans: Sequence[Span], encoded: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.function, ctx.spans = function, spans
        ctx.save_for_backward(encoded, *parameters)
        result = encoded.new_empty(len(encoded), spans[-1][1])
        for number, (begin, end) in enumerate(spans):
            result[:, begin:end] = function(encoded, number)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        encoded, *parameters = ctx.saved_tensors
        inputs = [encoded.detach().requires_grad_(), *parameters]
        sums = [torch.zeros_like(tensor) for tensor in inputs]
        for number, (begin, end) in enumerate(ctx.spans):
            with torch.enable_grad():
                output = ctx.function(inputs[0], number)
            parts = torch.autograd.grad(output, inputs, gradient[:, begin:end], allow_unused=True)
            for total, part in zip(sums, parts, strict=True):
                if part is not None:
                    total += part
        return None, None, *sums
