"""The task `captioned-shapes`: videos of coloured shapes with captions, learned by flow matching."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.config import option
from ..core.rng import generator
from ..tasks.base import Batch, Examples, SplitConfig, Task, hold_out, split_examples
from .captions import SCENES, Tokenizer
from .flow import draw_times, flow_batch
from .shapes import draw_videos

_CHANNELS = 3
_VALIDATION = 0.1  # of the examples

Velocities = Float[Tensor, "batch numbers"]


class CaptionedShapesConfig(SplitConfig):
    """Number and size of the videos, and the words of their captions."""

    split_seed: int = option(default=0, help="Random seed of the videos and of their division into splits.", at_least=0)
    examples: int = option(default=2048, help="All videos, a tenth of them for validation [count].", at_least=40)
    frames: int = option(default=3, help="Frames of a video [count].", at_least=1, at_most=1_000)
    size: int = option(default=12, help="Height and width of a video [pixels].", at_least=3, at_most=1_000)
    words: str = option(
        default="old",
        help="Words of the captions: old (red, circle, left), new (crimson, disc, west), or all, one or the other.",
        choices=("old", "new", "all"),
    )
    empty: float = option(
        default=0.1, help="Share of the captions of a training batch that are left empty.", at_least=0.0, below=1.0
    )


class CaptionedShapes(Task):
    """Videos of a coloured shape that moves, with captions such as `a red square moving left`.

        import metaopt
        from metaopt.diffusion import unpack

        task = metaopt.load_task("captioned-shapes", examples=100)
        inputs, velocities = task.splits["train"][:4]  # [4, 1305], [4, 1296]
        videos, times, tokens = unpack(inputs, (3, 3, 12, 12))  # noisy, from 0 to 1, of the captions
        task.tokenizer.decode(tokens)[0]  # such as 'a red square moving left'

    A network sees x_t = (1 - t) x_0 + t noise, t and the caption, and predicts the velocity noise - x_0. The loss is
    the mean squared error. Times and noise of the splits are fixed; each training batch has new ones, a function of
    random seed and epoch.
    """

    Config = CaptionedShapesConfig
    kind = "regression"
    topology = "transformer"
    metric_names = ("r2",)

    def __init__(self, config: CaptionedShapesConfig) -> None:
        self.config = config
        self.tokenizer = Tokenizer()
        random = generator(config.split_seed)
        scenes = [SCENES[number] for number in torch.randint(len(SCENES), (config.examples,), generator=random)]
        new = torch.rand(config.examples, 3, generator=random) < {"old": 0.0, "all": 0.5, "new": 1.0}[config.words]
        videos = draw_videos(scenes, config.frames, config.size, random)
        captions = [scene.caption(words) for scene, words in zip(scenes, new.tolist(), strict=True)]
        drawn = Batch(videos, self.tokenizer.encode(captions))
        clean = split_examples(*hold_out(drawn, _VALIDATION, config.split_seed), config)
        self._train = clean["train"]
        self.splits = {name: _noised(examples[:], random) for name, examples in clean.items()}
        self._variance = float(self.splits["train"][:].labels.double().var(correction=0))

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Shape of a video, tokens of a prompt, size and digest of the vocabulary."""
        return {
            "video_shape": [_CHANNELS, self.config.frames, self.config.size, self.config.size],
            "prompt_length": self.tokenizer.length,
            "vocab_size": len(self.tokenizer.words),
            "tokenizer": self.tokenizer.digest,
        }

    @property
    def baseline_loss(self) -> float:
        """The loss of predicting the mean velocity of the training split: the variance of its velocities."""
        return self._variance

    def loss(self, outputs: Velocities, labels: Velocities) -> Float[Tensor, ""]:
        """Mean squared error of the velocities."""
        return F.mse_loss(outputs, labels)

    def losses(self, outputs: Velocities, labels: Velocities) -> Float[Tensor, " batch"]:
        """The mean squared error of each example."""
        return (outputs - labels).square().mean(-1)

    def metrics(self, outputs: Velocities, labels: Velocities) -> dict[str, Tensor]:
        """None besides those of the loss."""
        return {}

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Coefficient of determination R² = 1 − loss / variance of the velocities."""
        return {"r2": 1 - loss / self._variance}

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """The training batches of one epoch, with new times, new noise and other empty captions in each epoch."""
        random, empty = generator(seed, epoch, batch_size), self.tokenizer.encode([""])
        order = torch.randperm(len(self._train), generator=generator(seed, epoch))
        for rows in order.split(batch_size):
            videos, tokens = self._train[rows]
            left_out = torch.rand(len(rows), 1, generator=random) < self.config.empty
            yield _drawn(videos, torch.where(left_out, empty, tokens), random)


def _drawn(videos: Tensor, tokens: Int[Tensor, "batch length"], random: torch.Generator) -> Batch:
    """A batch with random times and noise."""
    noise = torch.randn(videos.shape, generator=random)
    return flow_batch(videos, tokens, draw_times(len(videos), random), noise)


def _noised(clean: Batch, random: torch.Generator) -> Examples:
    return Examples(*_drawn(*clean, random))
