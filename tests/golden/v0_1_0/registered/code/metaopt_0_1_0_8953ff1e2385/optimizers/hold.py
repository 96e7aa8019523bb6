"""Baseline: the weights stay as they are."""

from jaxtyping import Float
from torch import Tensor

from ..configuration import Config
from ..weights.layout import Layout
from .base import GenerativeOptimizer


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
