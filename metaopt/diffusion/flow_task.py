"""Flow matching as a task: clean videos and the tokens of their captions, noised anew for each training batch."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.config import option
from ..core.errors import InvalidConfig
from ..core.rng import generator
from ..tasks.base import Batch, Examples, Split, SplitConfig, Task
from .flow import draw_times, flow_batch

Velocities = Float[Tensor, "batch numbers"]


class FlowConfig(SplitConfig):
    """Captions that are left empty, the times, and the splits."""

    empty: float = option(
        default=0.1, help="Share of the captions of a training batch that are left empty.", at_least=0.0, below=1.0
    )
    t_min: float = option(
        default=0.0,
        help="Smallest time that is drawn, such as 0.875 for the expert high_noise.",
        at_least=0.0,
        below=1.0,
    )
    t_max: float = option(
        default=1.0, help="Largest time that is drawn, such as 0.875 for the expert low_noise.", above=0.0, at_most=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_min >= self.t_max:
            raise InvalidConfig(f"t_min is {self.t_min} and t_max {self.t_max}; expected a smaller t_min")


class FlowMatching(Task):
    """Base class of tasks of flow matching with captions.

    A network sees x_t = (1 - t) x_0 + t noise, t and the caption, and predicts the velocity noise - x_0. The loss is
    the mean squared error. Times and noise of the splits are fixed; each training batch has new ones, a function of
    random seed and epoch.

    Args:
        clean: videos x_0 and the tokens of their captions, in splits.
        no_caption: the tokens of the empty caption [1, length].
        random: draws times and noise of the splits.
    """

    kind = "regression"
    topology = "transformer"
    metric_names = ("r2",)
    Config: ClassVar[type[FlowConfig]] = FlowConfig

    def __init__(
        self,
        config: FlowConfig,
        clean: dict[Split, Examples],
        no_caption: Int[Tensor, "1 length"],
        random: torch.Generator,
    ) -> None:
        self.config = config
        self._train, self._no_caption = clean["train"], no_caption
        self.splits = {name: Examples(*self._drawn(*examples[:], random)) for name, examples in clean.items()}
        self._variance = float(self.splits["train"][:].labels.double().var(correction=0))

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
        random = generator(seed, epoch, batch_size)
        order = torch.randperm(len(self._train), generator=generator(seed, epoch))
        for rows in order.split(batch_size):
            videos, tokens = self._train[rows]
            left_out = torch.rand(len(rows), 1, generator=random) < self.config.empty
            yield self._drawn(videos, torch.where(left_out, self._no_caption, tokens), random)

    def _drawn(self, videos: Tensor, tokens: Int[Tensor, "batch length"], random: torch.Generator) -> Batch:
        """A batch with random times and noise."""
        noise = torch.randn(videos.shape, generator=random)
        low, high = self.config.t_min, self.config.t_max
        return flow_batch(videos, tokens, low + (high - low) * draw_times(len(videos), random), noise)
