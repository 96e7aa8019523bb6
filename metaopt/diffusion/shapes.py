"""Draws videos of a coloured shape that moves on a black background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .captions import Scene

_COLOURS = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])  # of COLOURS
_MOVES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # of DIRECTIONS: right and down are positive

_TRAVEL = 0.7  # from the first frame to the last [half widths]
_JITTER = 0.12  # of a position [half widths]
_RADIUS, _RADIUS_JITTER = 0.5, 0.06  # [half widths]

Videos = Float[Tensor, "videos channels frames height width"]
Field = Float[Tensor, "videos frames height width"]


def draw_videos(scenes: Sequence[Scene], frames: int, size: int, random: torch.Generator) -> Videos:
    """Draw one video of each scene, with a random size and position of the shape.

    A shape crosses the middle in its direction. Its edges are smooth, so that positions count that are no whole pixels.

    Args:
        frames: frames of a video [count].
        size: height and width [pixels].
    Returns: colours from -1 to 1.
    """
    colours, shapes, directions = torch.tensor(scenes).reshape(-1, 3).unbind(1)
    count = len(colours)
    radius = _RADIUS + _RADIUS_JITTER * _symmetric(random, count, 1, 1, 1)
    middle = _JITTER * _symmetric(random, count, 1, 2)
    times = torch.linspace(-0.5, 0.5, frames).reshape(1, -1, 1)
    centres = middle + _TRAVEL * times * _MOVES[directions].unsqueeze(1)  # [videos, frames, 2]
    pixels = (torch.arange(size) + 0.5) * (2 / size) - 1
    across = pixels.reshape(1, 1, 1, -1) - centres[..., 0, None, None]
    down = pixels.reshape(1, 1, -1, 1) - centres[..., 1, None, None]
    distances = torch.stack(_distances(across, down, radius))[shapes, torch.arange(count)]
    cover = (0.5 - distances * (size / 2)).clamp(0, 1).unsqueeze(1)
    return _COLOURS[colours][..., None, None, None] * cover - (1 - cover)


def _distances(x: Tensor, y: Tensor, radius: Tensor) -> tuple[Field, ...]:
    """The distance of each pixel from the edge of each of SHAPES, negative inside [half widths]."""
    wide, high = x.abs().expand(*x.shape[:2], y.shape[2], -1), y.abs().expand(*y.shape[:3], x.shape[3])
    arm = 0.36 * radius
    circle = (x.square() + y.square()).sqrt() - radius
    square = torch.maximum(wide, high) - 0.86 * radius
    triangle = torch.maximum(y - 0.6 * radius, 0.866 * wide - 0.5 * y - 0.6 * radius)
    cross = torch.minimum(torch.maximum(wide - arm, high - radius), torch.maximum(high - arm, wide - radius))
    return circle, square, triangle, cross


def _symmetric(random: torch.Generator, *shape: int) -> Tensor:
    """Uniform numbers from -1 to 1."""
    return 2 * torch.rand(shape, generator=random) - 1
