"""Draws videos of a coloured shape that moves on a black background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator
from .captions import SCENES, Scene

_COLOURS = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, -1.0]])  # of COLOURS
_MOVES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # of DIRECTIONS: right and down are positive

_START, _END = 0.15, 0.58  # distance from the middle in the first and the last frame [half widths]
_JITTER = 0.08  # of a position [half widths]
_RADIUS, _RADIUS_JITTER = 0.42, 0.04  # [half widths]

_DRAWINGS = 24  # of each scene, to which videos are compared

Videos = Float[Tensor, "videos channels frames height width"]
Field = Float[Tensor, "videos frames height width"]


def draw_videos(scenes: Sequence[Scene], frames: int, size: int, random: torch.Generator) -> Videos:
    """Draw one video of each scene, with a random size and position of the shape.

    A shape begins near the middle and moves in its direction. Its edges are smooth, so that positions between whole
    pixels make a difference.

    Args:
        frames: frames of a video [count].
        size: height and width [pixels].
    Returns: colours from -1 to 1.
    """
    colours, shapes, directions = torch.tensor(scenes).reshape(-1, 3).unbind(1)
    count = len(colours)
    radius = _RADIUS + _RADIUS_JITTER * _symmetric(random, count, 1, 1, 1)
    middle = _JITTER * _symmetric(random, count, 1, 2)
    distances = torch.linspace(_START, _END, frames).reshape(1, -1, 1)
    centres = middle + distances * _MOVES[directions].unsqueeze(1)  # [videos, frames, 2]
    pixels = (torch.arange(size) + 0.5) * (2 / size) - 1
    across = pixels.reshape(1, 1, 1, -1) - centres[..., 0, None, None]
    down = pixels.reshape(1, 1, -1, 1) - centres[..., 1, None, None]
    edges = torch.stack(_distances(across, down, radius))[shapes, torch.arange(count)]
    cover = (0.5 - edges * (size / 2)).clamp(0, 1).unsqueeze(1)
    return _COLOURS[colours][..., None, None, None] * cover - (1 - cover)


def nearest_scenes(videos: Videos) -> list[Scene]:
    """The scene of each video: that of the most similar one of many drawings of all scenes.

    It tells whether a sample shows what its prompt says.
    """
    frames, height = videos.shape[2], videos.shape[3]
    scenes = [scene for scene in SCENES for _ in range(_DRAWINGS)]
    drawn = draw_videos(scenes, frames, height, generator(0))
    nearest = torch.cdist(videos.cpu().float().flatten(1), drawn.flatten(1)).argmin(1)
    return [scenes[number] for number in nearest.tolist()]


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
