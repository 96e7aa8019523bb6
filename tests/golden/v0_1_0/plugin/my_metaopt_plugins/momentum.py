"""Go on as the last stride went, a learned part of the way."""

import torch
from metaopt import GenerativeOptimizer, Layout
from metaopt.configuration import Config, option
from torch import Tensor, nn


class MomentumConfig(Config):
    """What it looks at and where it starts."""

    history: int = option(default=2, help="Past snapshots that it looks at [count].", at_least=2)
    share: float = option(default=0.0, help="Part of the way before any training.", at_least=0.0)


class Momentum(GenerativeOptimizer):
    """W_t plus a learned share of the movement since the snapshot before, per step, times the horizon."""

    Config = MomentumConfig

    def __init__(self, config: MomentumConfig | None = None) -> None:
        super().__init__()
        self.config = config or MomentumConfig()
        self.share = nn.Parameter(torch.tensor(float(self.config.share)))

    def extrapolate(self, history: Tensor, t_history: Tensor, t_end: Tensor, layout: Layout) -> Tensor:
        """The weights at `t_end`; history is [batch, snapshots, weights], oldest first."""
        if history.shape[1] < 2:
            return history[:, -1] + 0 * self.share
        elapsed = (t_history[:, -1] - t_history[:, -2]).clamp(min=1)  # 0 where the snapshot before is absent
        way = (t_end - t_history[:, -1]) / elapsed
        return history[:, -1] + self.share * way.unsqueeze(1) * (history[:, -1] - history[:, -2])
