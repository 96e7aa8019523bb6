"""Multilayer perceptron: linear layers with ReLU on flattened inputs."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.errors import InvalidConfig


class MLPConfig(Config):
    """Input features, classes and widths of the hidden layers."""

    in_features: int = option(default=784, help="Features of an example, flattened [count].", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)
    widths: tuple[int, ...] = option(default=(64, 32), help="Widths of the hidden layers.")


class MLP(nn.Module):
    """Multilayer perceptron with any number of hidden layers."""

    Config = MLPConfig

    def __init__(self, config: MLPConfig | None = None) -> None:
        super().__init__()
        config = config or MLPConfig()
        if any(width < 1 for width in config.widths):
            raise InvalidConfig(f"widths is {config.widths}; expected whole numbers of 1 or more")
        widths = [config.in_features, *config.widths, config.classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, examples: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Logits of each class, or the value of a regression."""
        return self.layers(examples)
