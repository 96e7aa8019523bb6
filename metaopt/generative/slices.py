"""A long result computed slice by slice, in memory that does not grow with it, also when gradients are wanted."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Span = tuple[int, int]
"""Where a slice begins and ends in the result."""


def in_slices(
    function: Callable[[Tensor, int], Tensor], spans: Sequence[Span], encoded: Tensor, parameters: Sequence[Tensor]
) -> Tensor:
    """Compute `function(encoded, number)` for each slice, into one result [batch, length].

    Gradients reach `encoded` and `parameters`; nothing is kept for them but the inputs, because each slice is computed
    again when they are wanted. `torch.utils.checkpoint` does the same for a function at a time; its many small
    results between large temporary tensors would leave the heap in pieces, three times as large as what is in it.

    Args:
        function: computes a slice [batch, its length]; of no other tensors that want gradients, and the same each time.
        spans: where each slice lies in the result; together they cover it in order.
        encoded: what all slices start from.
        parameters: all other tensors that the function uses and that want gradients.
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
                piece = ctx.function(inputs[0], number)
            parts = torch.autograd.grad(piece, inputs, gradient[:, begin:end], allow_unused=True)
            for total, part in zip(sums, parts, strict=True):
                if part is not None:
                    total += part
        return None, None, *sums
