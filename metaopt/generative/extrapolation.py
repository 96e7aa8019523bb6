"""Generative optimizers without parameters: Hold, Average, Line and Slopes. They are the baselines of learned ones."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.config import Config, option
from ..weights.layout import Layout
from .base import HISTORY_LIMIT, GenerativeOptimizer, SnapshotConfig, present_snapshots

History = Float[Tensor, "batch snapshots weights"]
Times = Float[Tensor, "batch snapshots"]
EndTimes = Float[Tensor, " batch"]
Weights = Float[Tensor, "batch weights"]


class HoldConfig(Config):
    """No options."""


class Hold(GenerativeOptimizer):
    """Keep the present weights: W_{t+h} = W_t, the baseline of every optimizer."""

    Config = HoldConfig
    elementwise = True

    def __init__(self, config: HoldConfig | None = None) -> None:
        super().__init__()
        self.config = config or HoldConfig()

    def extrapolate(self, history: History, t_history: Times, t_end: EndTimes, layout: Layout) -> Weights:
        """A copy of the last snapshot."""
        return history[:, -1].clone()


class AverageConfig(Config):
    """Number of averaged snapshots."""

    history: int = option(
        default=5, help="Snapshots to average, including the last [count].", at_least=1, below=HISTORY_LIMIT
    )


class Average(GenerativeOptimizer):
    """Mean of the last snapshots, independent of the horizon: LAWA (Kaddour 2022, arXiv:2209.14981)."""

    Config = AverageConfig
    elementwise = True

    def __init__(self, config: AverageConfig | None = None) -> None:
        super().__init__()
        self.config: AverageConfig = config or AverageConfig()

    def extrapolate(self, history: History, t_history: Times, t_end: EndTimes, layout: Layout) -> Weights:
        """The mean of the snapshots that are present."""
        present = present_snapshots(t_history[:, -self.config.history :]).to(history.dtype)
        share = present / present.sum(1, keepdim=True)
        return torch.einsum("bs,bsw->bw", share, history[:, -self.config.history :])


class LineConfig(SnapshotConfig):
    """Number of snapshots that the line is fitted to."""

    history: int = option(
        default=5, help="Snapshots to fit the line to, including the last [count].", at_least=1, below=HISTORY_LIMIT
    )


class Line(GenerativeOptimizer):
    """Linear extrapolation from W_t with the least-squares slope of the last snapshots.

    W_{t+h} = W_t + h · Σ_k (t_k − t̄) (W_{t_k} − W̄) / Σ_k (t_k − t̄)², where t̄ and W̄ are means over the snapshots.

    Departs from regression: the line passes through W_t, so that W_{t+0} = W_t. The fitted value at t would also smooth
    the weights, which is what `Average` does.
    """

    Config = LineConfig
    elementwise = True

    def __init__(self, config: LineConfig | None = None) -> None:
        super().__init__()
        self.config: LineConfig = config or LineConfig()

    def extrapolate(self, history: History, t_history: Times, t_end: EndTimes, layout: Layout) -> Weights:
        """W_t + slope · horizon; W_t if no older snapshot is present."""
        snapshots, times = history[:, -self.config.history :], t_history[:, -self.config.history :]
        slope = torch.einsum("bs,bsw->bw", slope_coefficients(times), snapshots)
        return snapshots[:, -1] + slope * (t_end - times[:, -1]).unsqueeze(1)


def slope_coefficients(times: Times) -> Times:
    """The coefficients a_k = (t_k − t̄) / Σ_j (t_j − t̄)² of the least-squares slope Σ_k a_k W_{t_k} [1 / steps].

    Their sum is zero. All are zero if no older snapshot is present.
    """
    present = present_snapshots(times).to(times.dtype)
    centred = (times - (times * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)) * present
    return centred / centred.square().sum(1, keepdim=True).clamp(min=torch.finfo(times.dtype).tiny)


class SlopesConfig(SnapshotConfig):
    """Age of the oldest snapshot."""

    history: int = option(
        default=9,
        help="Snapshots, including the last [count]; slopes start 1, 2, 4, 8 … before it.",
        at_least=1,
        below=HISTORY_LIMIT,
    )


class Slopes(GenerativeOptimizer):
    """Linear extrapolation from W_t with a weighted mean of slopes over several time spans.

    With the horizon h, the time a_k from an older snapshot to the last one, k = 1, 2, 4, 8 … snapshots before it, and
    r_k = h / (2 a_k):

        W_{t+h} = W_t + h · Σ_k p_k (W_t − W_{t−a_k}) / a_k
        p_k     = c_k / Σ_j c_j
        c_k     = (r_k / (1 + r_k²))²

    c_k is largest at a_k = h / 2. The slope over a span much shorter than the horizon is too noisy to extrapolate; the
    slope over a much longer span is out of date. The best horizon grows in the course of a training run, so a guard
    that chooses the horizon also chooses the span.
    """

    Config = SlopesConfig
    elementwise = True

    def __init__(self, config: SlopesConfig | None = None) -> None:
        super().__init__()
        self.config: SlopesConfig = config or SlopesConfig()

    def extrapolate(self, history: History, t_history: Times, t_end: EndTimes, layout: Layout) -> Weights:
        """The formula of the class; W_t if no older snapshot is present."""
        indices = snapshot_indices(doubling_ages(self.config.history), history.shape[1])
        times = select(t_history, indices)
        coefficients = slopes_coefficients(times, t_end - times[:, -1])
        generated = history[:, -1].clone()
        for index, coefficient in zip(indices[:-1], coefficients.unbind(1), strict=True):
            generated += coefficient.unsqueeze(1) * (history[:, -1] - history[:, index])
        return generated


def doubling_ages(history: int) -> list[int]:
    """The ages …, 8, 4, 2, 1, 0 below `history`; the age of a snapshot is the number of snapshots after it."""
    powers = [1 << power for power in range((history - 1).bit_length())]
    return [*reversed(powers), 0]


def snapshot_indices(ages: list[int], count: int) -> list[int]:
    """The indices of snapshots of these ages in a history of `count`; that of the last one for missing snapshots."""
    return [count - 1 - age if age < count else count - 1 for age in ages]


def select(times: Times, indices: Sequence[int]) -> Times:
    """The times of the snapshots with some indices. Indexing with a list would make the host wait for the device."""
    return torch.stack([times[:, index] for index in indices], 1)


def slopes_coefficients(times: Times, horizon: EndTimes) -> Float[Tensor, "batch snapshots-1"]:
    """The coefficients h p_k / a_k of the differences W_t − W_{t−a_k} in `Slopes` [1].

    They are zero for a horizon of zero and for missing snapshots.
    """
    present = present_snapshots(times)[:, :-1].to(times.dtype)
    ratio = present * horizon.unsqueeze(1) / (2 * (times[:, -1:] - times[:, :-1])).clamp(min=1)
    counts = (ratio / (1 + ratio.square())).square()
    tiny = torch.finfo(times.dtype).tiny
    return 2 * ratio * counts / counts.sum(1, keepdim=True).clamp(min=tiny)
