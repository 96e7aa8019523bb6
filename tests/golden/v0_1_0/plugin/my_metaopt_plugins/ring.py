"""A small network that sees squares."""

import torch
from metaopt.configuration import Config, option
from torch import Tensor, nn


class RingConfig(Config):
    """Shape of the data and width of the network."""

    inputs: int = option(default=2, help="Numbers per example [count].", at_least=1)
    classes: int = option(default=2, help="Number of classes.", at_least=2)
    width: int = option(default=8, help="Width of the hidden layer.", at_least=1)


class Ring(nn.Module):
    """One hidden layer over the inputs and their squares."""

    Config = RingConfig

    def __init__(self, config: RingConfig | None = None) -> None:
        super().__init__()
        config = config or RingConfig()
        self.layers = nn.Sequential(
            nn.Linear(2 * config.inputs, config.width), nn.Tanh(), nn.Linear(config.width, config.classes)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Logits of each class."""
        return self.layers(torch.cat([points, points.square()], -1))
