"""A small convolutional network without fully connected layers in between, for images of any size."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from .taps import Places


class ConvNetConfig(Config):
    """Channels of the images and shape of the network."""

    in_channels: int = option(default=1, help="Channels of an image.", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for a regression.", at_least=1)
    widths: tuple[int, ...] = option(default=(16, 32, 32), help="Channels after each convolution.")
    kernel: int = option(default=3, help="Height and width of the convolutions [pixels].", at_least=1)
    stride: int = option(default=1, help="Step of the convolutions [pixels].", at_least=1)
    norm: str = option(default="none", help="What follows each convolution.", choices=("none", "batch"))


class ConvNet(nn.Module):
    """Convolutions with ReLU, the mean over all pixels, one linear layer.

    With one channel, ten classes and the default widths it has exactly 14,378 weights.
    """

    Config = ConvNetConfig

    def __init__(self, config: ConvNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvNetConfig()
        if not config.widths or any(width < 1 for width in config.widths):
            raise InvalidConfig(f"widths is {config.widths}; expected one or more whole numbers of 1 or more")
        channels = pairwise((config.in_channels, *config.widths))
        self.blocks = nn.Sequential(*(_block(fan_in, fan_out, config) for fan_in, fan_out in channels))
        self.classifier = nn.Linear(config.widths[-1], config.classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class, or the value of a regression."""
        return self.classifier(self.blocks(images).mean((-2, -1)))

    def taps(self) -> Places:
        """A place after each convolution's ReLU."""
        return {f"blocks.{place}": ("block", width, 1) for place, width in enumerate(self.config.widths)}


def _block(fan_in: int, fan_out: int, config: ConvNetConfig) -> nn.Sequential:
    normed = config.norm == "batch"
    convolution = nn.Conv2d(fan_in, fan_out, config.kernel, config.stride, padding=config.kernel // 2, bias=not normed)
    return nn.Sequential(convolution, *([nn.BatchNorm2d(fan_out)] if normed else []), nn.ReLU())
