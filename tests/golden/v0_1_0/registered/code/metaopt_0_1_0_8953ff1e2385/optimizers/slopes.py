"""Baseline: straight on, by slopes over past times about half as long as the way ahead."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..configuration import option
from ..weights.layout import Layout
from .base import GenerativeOptimizer, SnapshotConfig, present


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
