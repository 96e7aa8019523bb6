"""Baseline: the mean of the last snapshots."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..configuration import Config, option
from ..weights.layout import Layout
from .base import GenerativeOptimizer, present


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
