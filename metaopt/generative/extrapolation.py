"""Baseline: the weights stay as they are."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.config import Config, option
from ..weights.layout import Layout
from .base import GenerativeOptimizer, SnapshotConfig, present


class HoldConfig(Config):
    """Nothing to configure."""


class Hold(GenerativeOptimizer):
    """Generates the last snapshot: what every other optimizer has to beat."""

    Config = HoldConfig

    def __init__(self, config: HoldConfig | None = None) -> None:
        super().__init__()
        self.config = config or HoldConfig()

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The last snapshot."""
        return history[:, -1].clone()


class AverageConfig(Config):
    """How many snapshots count."""

    history: int = option(default=5, help="Past snapshots that are averaged [count].", at_least=1)


class Average(GenerativeOptimizer):
    """Latest weight averaging, LAWA (Kaddour 2022, arXiv:2209.14981); the horizon plays no part."""

    Config = AverageConfig

    def __init__(self, config: AverageConfig | None = None) -> None:
        super().__init__()
        self.config: AverageConfig = config or AverageConfig()

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The mean of the last snapshots."""
        there = present(t_history[:, -self.config.history :]).to(history.dtype)
        share = there / there.sum(1, keepdim=True)
        return torch.einsum("bs,bsw->bw", share, history[:, -self.config.history :])


class LineConfig(SnapshotConfig):
    """How many snapshots the line is fitted to."""

    history: int = option(default=5, help="Past snapshots that the line is fitted to [count].", at_least=1)


class Line(GenerativeOptimizer):
    """Least-squares line through the last snapshots, continued to `t_end` from the last of them.

    The slope is fitted; the line starts at W_t, so that a horizon of zero changes nothing (the regression line's
    own value there would smooth W_t, which is `Average`'s business).
    """

    Config = LineConfig

    def __init__(self, config: LineConfig | None = None) -> None:
        super().__init__()
        self.config: LineConfig = config or LineConfig()

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """W_t + slope · horizon; W_t where there is no past to fit a slope to."""
        snapshots, times = history[:, -self.config.history :], t_history[:, -self.config.history :]
        slope = torch.einsum("bs,bsw->bw", slope_shares(times), snapshots)
        return snapshots[:, -1] + slope * (t_end - times[:, -1]).unsqueeze(1)


def slope_shares(times: Float[Tensor, "batch snapshots"]) -> Float[Tensor, "batch snapshots"]:
    """What each snapshot contributes to the slope of the least-squares line through all of them [1 / steps].

    They add up to zero; all are zero where there is no past to fit a slope to.
    """
    there = present(times).to(times.dtype)
    centred = (times - (times * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there
    return centred / centred.square().sum(1, keepdim=True).clamp(min=torch.finfo(times.dtype).tiny)


class SlopesConfig(SnapshotConfig):
    """How far back the slopes reach."""

    history: int = option(
        default=9, help="Past snapshots [count]; slopes start from those 1, 2, 4, 8 … before the last.", at_least=1
    )


class Slopes(GenerativeOptimizer):
    """W_t plus a mean of straight lines from older snapshots through W_t, continued to `t_end`.

    A line over twenty steps is noise when hundreds are to be foretold; a line over hundreds is out of date for twenty.
    So each counts the more, the nearer its length is to half of the horizon. Near the start of a training the best
    horizon is short, and later it grows: a guard that chooses among horizons also chooses how far to look back.
    """

    Config = SlopesConfig

    def __init__(self, config: SlopesConfig | None = None) -> None:
        super().__init__()
        self.config: SlopesConfig = config or SlopesConfig()

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """W_t plus the mean; W_t where there is no past."""
        rows = rows_of(doubling_ages(self.config.history), history.shape[1])
        times = t_history[:, rows]
        shares = straight_on(times, t_end - times[:, -1])
        generated = history[:, -1].clone()
        for row, share in zip(rows[:-1], shares.unbind(1), strict=True):
            generated += share.unsqueeze(1) * (history[:, -1] - history[:, row])
        return generated


def doubling_ages(history: int) -> list[int]:
    """Which snapshots of a history to look at, by how many came after them: …, 8, 4, 2, 1, 0."""
    return [*(age for age in reversed(range(1, history)) if age.bit_count() == 1), 0]


def rows_of(ages: list[int], count: int) -> list[int]:
    """Where in a history of `count` snapshots those of some ages are; the last for those not there."""
    return [count - 1 - age if age < count else count - 1 for age in ages]


def straight_on(
    times: Float[Tensor, "batch snapshots"], horizon: Float[Tensor, " batch"]
) -> Float[Tensor, "batch snapshots-1"]:
    """How often the difference of W_t to each older snapshot is to be added to W_t, to go straight on [1].

    With r = horizon / (2 · age) a line counts (r / (1 + r²))², which is most at r = 1. All are zero for a horizon of
    zero, and where there is no past.
    """
    there = present(times)[:, :-1].to(times.dtype)
    ratio = there * horizon.unsqueeze(1) / (2 * (times[:, -1:] - times[:, :-1])).clamp(min=1)
    counts = (ratio / (1 + ratio.square())).square()
    tiny = torch.finfo(times.dtype).tiny
    return 2 * ratio * counts / counts.sum(1, keepdim=True).clamp(min=tiny)
