"""torchvision's residual networks, for images of any size."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.dependencies import import_torchvision
from .builders import fit_channels
from .taps import Places


class ResNetConfig(Config):
    """Shape of the images."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=224, help="Height and width of an image [pixels].", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for a regression.", at_least=1)


class _ResNet(nn.Module):
    """What residual networks share; `_original` is what torchvision calls one.

    Departs: images of 64 pixels or less enter through a 3×3 convolution without pooling, as is usual for CIFAR;
    the original first layers would leave nothing of them.
    """

    Config = ResNetConfig
    _original: ClassVar[str]

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        config = config or ResNetConfig()
        self.network = import_torchvision().models.get_model(self._original, weights=None, num_classes=config.classes)
        if config.image_size <= 64:
            self.network.conv1 = nn.Conv2d(config.in_channels, 64, 3, padding=1, bias=False)
            self.network.maxpool = nn.Identity()
        fit_channels(self.network, config.in_channels)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class, or the value of a regression."""
        return self.network(images)

    def taps(self) -> Places:
        """A place after each residual block."""
        return {
            f"network.{stage}.{place}": ("block", block.conv2.out_channels, 1)
            for stage in ("layer1", "layer2", "layer3", "layer4")
            for place, block in self.network.get_submodule(stage).named_children()
        }


class ResNet18(_ResNet):
    """Residual network of 18 layers with BatchNorm (He et al. 2015, arXiv:1512.03385)."""

    _original = "resnet18"


class ResNet34(_ResNet):
    """Residual network of 34 layers with BatchNorm (He et al. 2015, arXiv:1512.03385)."""

    _original = "resnet34"
