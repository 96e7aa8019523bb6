"""Samples of a text-to-video network: Euler steps from noise to a video, and a picture of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.devices import device_of
from ..core.rng import generator
from ..figures import canvas, styled
from .network import TextToVideo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROMPTS = (
    "a red circle moving left", "a green circle moving right", "a blue circle moving up", "a yellow circle moving down",
    "a green square moving left", "a blue square moving right", "a yellow square moving up", "a red square moving down",
    "a blue triangle moving left", "a yellow triangle moving right", "a red triangle moving up",
    "a green triangle moving down",
    "a yellow cross moving left", "a red cross moving right", "a green cross moving up", "a blue cross moving down",
)  # fmt: skip
"""Prompts of pictures: each colour, shape and direction four times."""

_COLUMNS = 2  # of videos in a picture
_GAP = 1  # between frames [pixels]

Videos = Float[Tensor, "batch channels frames height width"]


@torch.no_grad()
def sample(
    model: TextToVideo, tokens: Int[Tensor, "batch length"], steps: int = 20, seed: int = 0, guidance: float = 1.0
) -> Videos:
    """Draw a video for each prompt, by Euler's method from t = 1 to 0.

        from metaopt import get_target_model, load_task
        from metaopt.diffusion import PROMPTS, sample, video_chart
        from metaopt.figures import rendered

        task = load_task("captioned-shapes", examples=100)
        model = get_target_model("TextToVideo", task.model_facts)  # untrained
        videos = sample(model, task.tokenizer.encode(PROMPTS), steps=2)  # [16, 3, 3, 12, 12]
        picture = rendered(video_chart("Samples", "of an untrained network", videos, PROMPTS))["png"]

    Args:
        steps: evaluations of the network [count].
        seed: random seed of the noise; each prompt has its own.
        guidance: 1 for the velocity of the prompt; w above 1 for v(empty) + w (v(prompt) - v(empty)), which takes
            twice the time.
    Returns: colours, mostly from -1 to 1.
    References: Ho & Salimans 2022, arXiv:2207.12598, whose weight is w - 1 here.
    """
    device = device_of(model)
    tokens = tokens.to(device)
    embeddings, empty = model.embed(tokens), model.embed(model.null_tokens(len(tokens)).to(device))
    videos = torch.randn(len(tokens), *model.config.video_shape, generator=generator(seed)).to(device)
    for step in range(steps):
        times = torch.full((len(tokens),), 1 - step / steps, device=device)
        velocity = model.velocity(videos, times, embeddings)
        if guidance != 1:
            unguided = model.velocity(videos, times, empty)
            velocity = unguided + guidance * (velocity - unguided)
        videos = videos - velocity / steps
    return videos


@styled()
def video_chart(title: str, subtitle: str, videos: Videos, prompts: Sequence[str]) -> "Figure":
    """A picture of videos, their frames from left to right, each below its prompt."""
    rows = -(-len(prompts) // _COLUMNS)
    figure, grid = canvas(title, subtitle, 1.25 * rows, nrows=rows, ncols=_COLUMNS)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, video, prompt in zip(grid.flat, videos.cpu(), prompts, strict=False):
        frames = torch.nn.functional.pad(video, (0, _GAP), value=1.0)  # white between them
        strip = frames.permute(2, 1, 3, 0).flatten(1, 2)[:, :-_GAP]
        axes.imshow(((strip + 1) / 2).clamp(0, 1).numpy(), interpolation="nearest")
        axes.set_title(prompt, fontsize=9, loc="left", pad=3)
    return figure
