"""Baseline: each weight goes on along the straight line through its last values."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..configuration import option
from ..weights.layout import Layout
from .base import GenerativeOptimizer, SnapshotConfig, present


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
