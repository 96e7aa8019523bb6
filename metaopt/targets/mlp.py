"""Linear layers with ReLU between them, on flattened inputs."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from ..configuration import Config, option
from ..errors import InvalidConfig


class MLPConfig(Config):
    """Shape of the inputs and widths of the hidden layers."""

    in_channels: int = option(default=1, help="Channels of an image.", at_least=1)
    image_size: int = option(default=28, help="Height and width of an image [pixels].", at_least=1)
    classes: int = option(default=10, help="Number of classes.", at_least=2)
    widths: tuple[int, ...] = option(default=(64, 32), help="Widths of the hidden layers.")


class MLP(nn.Module):
    """A multilayer perceptron of any depth."""

    Config = MLPConfig

    def __init__(self, config: MLPConfig | None = None) -> None:
        super().__init__()
        config = config or MLPConfig()
        if any(width < 1 for width in config.widths):
            raise InvalidConfig(f"widths is {config.widths}; expected whole numbers of 1 or more")
        widths = [config.in_channels * config.image_size**2, *config.widths, config.classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class."""
        return self.layers(images)
