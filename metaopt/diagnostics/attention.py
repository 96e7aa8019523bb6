"""What an optimizer with a Perceiver in it attends to: the weights of its encoder's attention over the tokens."""

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

_STATES = 3


@dataclass(frozen=True)
class Attention:
    """Shares of attention, by layer.

    Attributes:
        names: tensors, or groups of them, as in `Layers`.
        starts: steps at which was looked.
        shares: of all attention of all latents and heads; each start's add up to 1.
        even: what attention that looks at nothing in particular would give: the share of the tokens that are seen.
        by_latent: shares of each latent's own attention, at the middle start.
        tokens: tokens that are seen [count].
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    shares: Float[np.ndarray, "starts names"]
    even: Float[np.ndarray, " names"]
    by_latent: Float[np.ndarray, "latents names"]
    tokens: int


def attention(course: ProbedRun, optimizer: GenerativeOptimizer) -> Attention | None:
    """Look at the encoder at an early, a middle and a late state; None for optimizers without one."""
    if not isinstance(optimizer, PerceiverOptimizer):
        return None
    names, owner = groups(course.layout)
    grid = token_grid(course.layout, optimizer.config.token_size)
    seen = grid.spread(optimizer.config.encoded_tokens)
    group_of_token = torch.tensor(owner)[grid.owner(seen)]
    starts = course.starts(_STATES)
    looks = [_by_group(_attended(course, optimizer, start), group_of_token, len(names)) for start in starts]
    counts = torch.bincount(group_of_token, minlength=len(names))
    return Attention(
        names=names,
        starts=tuple(starts),
        shares=np.stack([look.mean(0).numpy() for look in looks]),
        even=(counts / counts.sum()).double().numpy(),
        by_latent=looks[len(looks) // 2].numpy(),
        tokens=len(seen),
    )


def _attended(course: ProbedRun, optimizer: PerceiverOptimizer, start: int) -> Float[Tensor, "latents tokens"]:
    with _listening(optimizer) as redeliver_lost_signals:
        course.predicted(optimizer, start, course.reach)
    return redeliver_lost_signals[0].double().mean(0)


@contextmanager
def _listening(optimizer: PerceiverOptimizer) -> Iterator[list[Float[Tensor, "heads latents tokens"]]]:
    """Collect what the encoder's attention module makes of its tokens: its dropout sees the finished attention.

    The encoder runs once per decoded slice, each time with the same tokens.
    """
    redeliver_lost_signals: list[Tensor] = []
    module = optimizer.perceiver.cross_attend_block.cross_attn.fn.dropout
    hook = module.register_forward_hook(
        lambda _module, inputs, _output: redeliver_lost_signals.append(inputs[0].detach().cpu())
    )
    try:
        yield redeliver_lost_signals
    finally:
        hook.remove()


def _by_group(
    attended: Float[Tensor, "latents tokens"], group_of_token: Tensor, count: int
) -> Float[Tensor, "latents groups"]:
    return torch.zeros(len(attended), count, dtype=attended.dtype).index_add_(1, group_of_token, attended)
