"""The task `captioned-shapes`: videos of coloured shapes with captions, learned by flow matching."""

from collections.abc import Mapping
from typing import Any

import torch

from ..core.config import option
from ..core.rng import generator
from ..tasks.base import Batch, hold_out, split_examples
from .captions import SCENES, Tokenizer
from .flow_task import FlowConfig, FlowMatching
from .shapes import draw_videos

_CHANNELS = 3
_VALIDATION = 0.1  # of the examples


class CaptionedShapesConfig(FlowConfig):
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


class CaptionedShapes(FlowMatching):
    """Videos of a coloured shape that moves, with captions such as `a red square moving left`.

        import metaopt
        from metaopt.diffusion import unpack

        task = metaopt.load_task("captioned-shapes", examples=100)
        inputs, velocities = task.splits["train"][:4]  # [4, 1305], [4, 1296]
        videos, times, tokens = unpack(inputs, (3, 3, 12, 12))  # noisy, from 0 to 1, of the captions
        task.tokenizer.decode(tokens)[0]  # such as 'a red square moving left'

    The splits of `words="old"`, `"new"` and `"all"` have the same videos, times and noise.
    """

    Config = CaptionedShapesConfig

    def __init__(self, config: CaptionedShapesConfig) -> None:
        self.tokenizer = Tokenizer()
        random = generator(config.split_seed)
        scenes = [SCENES[number] for number in torch.randint(len(SCENES), (config.examples,), generator=random)]
        new = torch.rand(config.examples, 3, generator=random) < {"old": 0.0, "all": 0.5, "new": 1.0}[config.words]
        videos = draw_videos(scenes, config.frames, config.size, random)
        captions = [scene.caption(words) for scene, words in zip(scenes, new.tolist(), strict=True)]
        drawn = Batch(videos, self.tokenizer.encode(captions))
        clean = split_examples(*hold_out(drawn, _VALIDATION, config.split_seed), config)
        super().__init__(config, clean, self.tokenizer.encode([""]), random)
        self._shape = [_CHANNELS, config.frames, config.size, config.size]

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Shape of a video, tokens of a prompt, size and digest of the vocabulary."""
        return {
            "video_shape": self._shape,
            "prompt_length": self.tokenizer.length,
            "vocab_size": len(self.tokenizer.words),
            "tokenizer": self.tokenizer.digest,
        }
