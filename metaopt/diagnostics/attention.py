"""Attention of a Perceiver: the shares of its encoder's cross-attention that each layer of the network receives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..generative.base import GenerativeOptimizer
from ..generative.perceiver import PerceiverOptimizer
from ..weights.tokens import token_grid
from .layers import groups
from .probed_run import ProbedRun

_STARTS = 3


@dataclass(frozen=True)
class Attention:
    """Shares of attention, by layer.

    Attributes:
        names: tensors, or groups of them, as in `Layers`.
        starts: the steps of the states.
        shares: mean over all latents and heads; the shares of each start sum to 1.
        uniform: the shares under uniform attention, which are the shares of the encoded tokens.
        by_latent: the shares of each latent, at the middle start.
        tokens: encoded tokens [count].
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    shares: Float[np.ndarray, "starts names"]
    uniform: Float[np.ndarray, " names"]
    by_latent: Float[np.ndarray, "latents names"]
    tokens: int


def attention(run: ProbedRun, optimizer: GenerativeOptimizer) -> Attention | None:
    """Measure the attention at an early, a middle and a late state; None unless the optimizer is a Perceiver."""
    if not isinstance(optimizer, PerceiverOptimizer):
        return None
    names, group_of_tensor = groups(run.layout)
    grid = token_grid(run.layout, optimizer.config.token_size)
    encoded = grid.evenly_spaced(optimizer.config.encoded_tokens)
    group_of_token = torch.tensor(group_of_tensor)[grid.tensor_index(encoded)]
    starts = run.starts(_STARTS)
    by_start = [_sum_by_group(_attention_at(run, optimizer, start), group_of_token, len(names)) for start in starts]
    counts = torch.bincount(group_of_token, minlength=len(names))
    return Attention(
        names=names,
        starts=tuple(starts),
        shares=np.stack([shares.mean(0).numpy() for shares in by_start]),
        uniform=(counts / counts.sum()).double().numpy(),
        by_latent=by_start[len(by_start) // 2].numpy(),
        tokens=len(encoded),
    )


def _attention_at(run: ProbedRun, optimizer: PerceiverOptimizer, start: int) -> Float[Tensor, "latents tokens"]:
    with _recorded_attention(optimizer) as recorded:
        run.predict(optimizer, start, run.horizon)
    return recorded[0].double().mean(0)


@contextmanager
def _recorded_attention(optimizer: PerceiverOptimizer) -> Iterator[list[Float[Tensor, "heads latents tokens"]]]:
    """Collect the encoder's attention weights, which are the inputs of its dropout module.

    The encoder runs once per decoded slice, each time with the same tokens.
    """
    recorded: list[Tensor] = []
    dropout = optimizer.perceiver.cross_attend_block.cross_attn.fn.dropout
    hook = dropout.register_forward_hook(lambda _module, inputs, _output: recorded.append(inputs[0].detach().cpu()))
    try:
        yield recorded
    finally:
        hook.remove()


def _sum_by_group(
    shares: Float[Tensor, "latents tokens"], group_of_token: Tensor, count: int
) -> Float[Tensor, "latents groups"]:
    return torch.zeros(len(shares), count, dtype=shares.dtype).index_add_(1, group_of_token, shares)
