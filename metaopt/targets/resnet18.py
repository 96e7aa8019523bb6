"""torchvision's ResNet-18, for images of any size."""

from jaxtyping import Float
from torch import Tensor, nn

from ..configuration import Config, option
from ..dependencies import import_torchvision


class ResNet18Config(Config):
    """Shape of the images."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=224, help="Height and width of an image [pixels].", at_least=1)
    classes: int = option(default=10, help="Number of classes.", at_least=2)


class ResNet18(nn.Module):
    """Residual network of 18 layers with BatchNorm (He et al. 2015, arXiv:1512.03385).

    Departs: images of 64 pixels or less enter through a 3×3 convolution without pooling, as is usual for CIFAR;
    the original first layers would leave nothing of them.
    """

    Config = ResNet18Config

    def __init__(self, config: ResNet18Config | None = None) -> None:
        super().__init__()
        config = config or ResNet18Config()
        self.network = import_torchvision().models.resnet18(weights=None, num_classes=config.classes)
        if config.image_size <= 64:
            self.network.conv1 = nn.Conv2d(config.in_channels, 64, 3, padding=1, bias=False)
            self.network.maxpool = nn.Identity()
        elif config.in_channels != 3:
            self.network.conv1 = nn.Conv2d(config.in_channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class."""
        return self.network(images)
