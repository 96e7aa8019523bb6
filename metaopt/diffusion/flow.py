"""Flow matching: the straight path from a video to noise, and the rows that carry it from a task to a network."""

from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..tasks.base import Batch

VideoShape = tuple[int, ...]
"""Channels, frames, height and width."""

Rows = Float[Tensor, "batch numbers"]
Times = Float[Tensor, " batch"]


class Noisy(NamedTuple):
    """Inputs of a network.

    Attributes:
        videos: x_t [batch, channels, frames, height, width].
        times: t, from 0 for a video to 1 for noise [batch].
        tokens: of the prompts [batch, length].
    """

    videos: Tensor
    times: Tensor
    tokens: Tensor


def flow_batch(videos: Tensor, tokens: Int[Tensor, "batch length"], times: Times, noise: Tensor) -> Batch:
    """The inputs and labels of flow matching: x_t = (1 - t) x_0 + t noise, and the velocity noise - x_0.

    Args:
        videos: x_0 [batch, channels, frames, height, width].
        noise: of the same shape.
    Returns: rows of `pack`, and velocities [batch, numbers of a video].
    References: Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003.
    """
    t = times.reshape(-1, *[1] * (videos.ndim - 1))
    return Batch(pack(Noisy((1 - t) * videos + t * noise, times, tokens)), (noise - videos).flatten(1))


def pack(noisy: Noisy) -> Rows:
    """One row per example: the video, the time, and the tokens, which float32 represents exactly below 2²⁴."""
    return torch.cat([noisy.videos.flatten(1), noisy.times.unsqueeze(1), noisy.tokens.to(noisy.videos.dtype)], dim=1)


def unpack(rows: Rows, video_shape: VideoShape) -> Noisy:
    """What `pack` joined."""
    numbers = prod(video_shape)
    videos = rows[:, :numbers].unflatten(1, video_shape)
    return Noisy(videos, rows[:, numbers], rows[:, numbers + 1 :].long())


def draw_times(count: int, random: torch.Generator) -> Times:
    """Times in (0, 1), one from each of `count` equal parts in random order, so that each batch covers all times.

    References: Kingma et al. 2021, arXiv:2107.00630, appendix I.1.
    """
    parts = torch.randperm(count, generator=random) + torch.rand(count, generator=random)
    return (parts / count).clamp(1e-4, 1 - 1e-4)
