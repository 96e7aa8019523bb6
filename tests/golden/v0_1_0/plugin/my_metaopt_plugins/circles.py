"""Points in the plane: is one inside the circle?"""

from collections.abc import Mapping
from typing import Any

import torch

from metaopt.configuration import option
from metaopt.tasks.base import Batch, SplitConfig, generator
from metaopt.tasks.classification import Classification


class CirclesConfig(SplitConfig):
    """How many points there are, and how they are divided."""

    points: int = option(default=400, help="Points in all [count]; a quarter only judges.", at_least=40)


class Circles(Classification):
    """Name the side of a circle on which a point lies; about as many lie inside as outside."""

    Config = CirclesConfig
    topology = "mlp"

    def __init__(self, config: CirclesConfig) -> None:
        points = 2 * torch.rand(config.points, 2, generator=generator(config.split_seed)) - 1
        labels = (points.norm(dim=1) < 0.8).long()
        judged = config.points // 4
        super().__init__(
            train=Batch(points[judged:], labels[judged:]),
            validation=Batch(points[:judged], labels[:judged]),
            classes=2,
            config=config,
        )

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """What a target may need to know, by the names that its configuration uses."""
        return {"inputs": 2, "classes": self.classes}
