"""The probe `prompt-grid`."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..core.config import Config, option
from ..tasks import Batch, Task
from .base import Probe, ProbeResult
from .protocols import PredictsVelocity, Tokens, tokens_of
from .running import floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..diffusion import TextToVideo


_COLOURS = 3


class PromptGridConfig(Config):
    """How many prompts are drawn, and how finely."""

    prompts: int = option(default=8, help="Prompts that are drawn, the first different ones [count].", at_least=1)
    steps: int = option(default=20, help="Steps of Euler's method for each sample [count].", at_least=1)


class PromptGrid(Probe):
    """Samples of the same prompts from the same noise, drawn before and after the change.

    What a change does to single samples, which a mean over examples may hide.
    """

    Config = PromptGridConfig
    how_to_read = """The figure has a row for each prompt: its sample before the change, and after it, from the same
noise. `change` is ‖after − before‖ / ‖before‖ over all samples. Samples differ where the prompts have another effect; a
change that keeps the behaviour leaves them nearly equal."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs a network that draws videos of three colours for texts."""
        shape = getattr(getattr(model, "config", None), "video_shape", None)
        if shape is None or not isinstance(model, PredictsVelocity):
            return "it draws no videos for texts"
        return None if shape[0] == _COLOURS else f"its videos have {shape[0]} channels and not {_COLOURS} colours"

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Samples of both networks, and a row for each prompt."""
        from ..diffusion import sample

        tokens = _different(cast(Tokens, tokens_of(before, examples.inputs)))[: self.config.prompts]
        drawn = [sample(cast("TextToVideo", each), tokens, self.config.steps) for each in (before, after)]
        norms, moved = (each.flatten(1).norm(dim=1) for each in (drawn[0], drawn[1] - drawn[0]))
        texts = _texts(task, tokens)
        rows = [{"prompt": text, "change": change} for text, change in zip(texts, floats(moved / norms), strict=True)]
        change = float(moved.norm() / norms.norm())
        figure = partial(_figure, texts, torch.stack(drawn, dim=1).flatten(0, 1).cpu())
        return ProbeResult({"change": change}, rows, figures={"samples": figure})


def _different(tokens: Tokens) -> Tokens:
    """The rows of tokens without repetitions, in their order."""
    first = {tuple(row): place for place, row in reversed([*enumerate(tokens.tolist())])}
    return tokens[sorted(first.values())]


def _texts(task: Task, tokens: Tokens) -> list[str]:
    """The prompts as text, if the task can decode them."""
    tokenizer: Any = getattr(task, "tokenizer", None)
    if tokenizer is None:
        return [f"prompt {number}" for number in range(1, len(tokens) + 1)]
    return [text or "(empty)" for text in tokenizer.decode(tokens)]


def _figure(texts: list[str], videos: Tensor) -> "Figure":
    from ..diffusion import video_chart

    names = [f"{text}: {side}" for text in texts for side in ("before", "after")]
    return video_chart("Samples before and after the change", "Each pair is from the same noise", videos, names)
