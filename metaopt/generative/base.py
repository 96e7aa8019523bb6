"""What a generative optimizer is: a pure function from past weights and two times to future weights."""

from abc import abstractmethod
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..core import config as configuration
from ..core.errors import LayoutMismatch
from ..weights.layout import Layout


class SnapshotConfig(configuration.Config):
    """What the snapshots are of that an optimizer is shown."""

    averaging: float = configuration.option(
        default=0.0,
        help="Decay of the running average of the weights that snapshots are of; 0 for the weights themselves.",
        at_least=0.0,
        below=1.0,
    )


class GenerativeOptimizer(nn.Module):
    """Maps a history of weights and a time to the weights at that time.

    It holds no target, no data and no step counter, and works on any layout. A subclass is final: it names its
    `Config` and defines `extrapolate`; the checks here are the same for all.

    A history may be shorter than what a batch needs: a snapshot that is absent is a copy of the last one with the
    last one's time, in front of the others.
    """

    Config: ClassVar[type[configuration.Config]]
    config: configuration.Config

    @property
    def history(self) -> int:
        """How many past snapshots it can use [count], the last one included."""
        return int(getattr(self.config, "history", 1))

    @property
    def averaging(self) -> float:
        """Decay of the running average of the weights that its snapshots are of; 0: they are the weights themselves."""
        return float(getattr(self.config, "averaging", 0.0))

    @abstractmethod
    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The weights at `t_end`, differentiable; arguments as for `generate`, already checked."""

    @final  # type: ignore[misc]  # nn.Module declares `forward` as a variable, which mypy would keep open
    def forward(
        self,
        weights: Float[Tensor, "batch weights"],
        t_start: Float[Tensor, " batch"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
        history: Float[Tensor, "batch past weights"] | None = None,
        t_history: Float[Tensor, "batch past"] | None = None,
    ) -> Float[Tensor, "batch weights"]:
        """Generate the weights at `t_end` from those at `t_start` and, if given, from older ones.

        Args:
            weights: the last snapshot [raw units].
            t_start, t_end: training times [optimizer steps].
            layout: names and shapes of the weights.
            history: older snapshots, oldest first, without the last one [raw units].
            t_history: their training times [optimizer steps].
        Raises:
            LayoutMismatch: another number of weights than the layout has, shapes that disagree, or a history
                without its times.
        """
        snapshots, times = _joined(weights, t_start, history, t_history)
        return self.generate(snapshots, times, t_end, layout)

    @final
    def generate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """Generate the weights at `t_end` from a history, differentiable.

        Args:
            history: past weights, oldest first; those older than it can use are ignored [raw units].
            t_history: their training times, not falling [optimizer steps].
            t_end: the time to generate for, not before the last snapshot [optimizer steps].
            layout: names and shapes of the weights.
        Returns: the weights at `t_end` [raw units].
        Raises:
            LayoutMismatch: another number of weights than the layout has, or shapes that disagree.
        """
        self._check(history, t_history, t_end, layout)
        return self.extrapolate(history, t_history, t_end, layout)

    @final
    @torch.no_grad()
    def predict(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """Like `generate`, without gradients: what everybody calls who does not train the optimizer."""
        return self.generate(history, t_history, t_end, layout)

    def _check(self, history: Tensor, t_history: Tensor, t_end: Tensor, layout: Layout) -> None:
        if history.ndim != 3 or history.shape[1] < 1:
            raise LayoutMismatch(f"history has shape {tuple(history.shape)}; expected [batch, snapshots ≥ 1, weights]")
        if t_history.shape != history.shape[:2] or t_end.shape != history.shape[:1]:
            raise LayoutMismatch(
                f"times have shapes {tuple(t_history.shape)} and {tuple(t_end.shape)}; a history of shape "
                f"{tuple(history.shape)} needs {tuple(history.shape[:2])} and {tuple(history.shape[:1])}"
            )
        layout.check_size(history)


def _joined(
    weights: Tensor, t_start: Tensor, history: Tensor | None, t_history: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All snapshots and their times, the last one behind the older ones."""
    if (history is None) != (t_history is None):
        given, missing = ("history", "t_history") if t_history is None else ("t_history", "history")
        raise LayoutMismatch(f"{given} is given without {missing}; give both, or neither")
    try:
        snapshots, times = weights.unsqueeze(1), t_start.unsqueeze(1)
        if history is None or t_history is None:
            return snapshots, times
        return torch.cat([history, snapshots], 1), torch.cat([t_history, times], 1)
    except (IndexError, RuntimeError) as error:
        named = {"weights": weights, "t_start": t_start, "history": history, "t_history": t_history}
        shapes = " and ".join(f"{name} {tuple(each.shape)}" for name, each in named.items() if each is not None)
        raise LayoutMismatch(
            f"shapes disagree: {shapes}; expected weights [batch, weights], t_start [batch], history [batch, past, "
            "weights] and t_history [batch, past]"
        ) from error


def present(t_history: Float[Tensor, "batch snapshots"]) -> Bool[Tensor, "batch snapshots"]:
    """Which snapshots of a history are there: the last one, and those that are older than it."""
    there = t_history < t_history[:, -1:]
    there[:, -1] = True
    return there
