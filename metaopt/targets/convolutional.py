"""Convolutional networks: TargetCNN, ConvNet, ResNet18 and ResNet34."""

from itertools import pairwise
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.dependencies import import_torchvision
from ..core.errors import InvalidConfig
from .libraries import fit_channels
from .taps import Places

Images = Float[Tensor, "batch channels height width"]
Logits = Float[Tensor, "batch classes"]


class TargetCNNConfig(Config):
    """Shape of the images and width of the network."""

    in_channels: int = option(default=1, help="Channels of an image.", at_least=1)
    image_size: int = option(default=28, help="Height and width of an image [pixels].", at_least=4)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)
    hidden: int = option(default=128, help="Width of the hidden linear layer.", at_least=1)


class TargetCNN(nn.Module):
    """Two 3×3 convolutions (32, 64 channels) with ReLU and 2×2 max pooling, then two linear layers.

        import metaopt

        model = metaopt.TargetCNN()
        assert sum(parameter.numel() for parameter in model.parameters()) == 421_642

    On 28×28 images with one channel and ten classes it has exactly 421,642 weights.
    """

    Config = TargetCNNConfig

    def __init__(self, config: TargetCNNConfig | None = None) -> None:
        super().__init__()
        config = config or TargetCNNConfig()
        self.features = nn.Sequential(
            nn.Conv2d(config.in_channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * (config.image_size // 4) ** 2, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.classes),
        )

    def forward(self, images: Images) -> Logits:
        """Logits of each class, or the value of a regression."""
        return self.classifier(self.features(images))

    def taps(self) -> Places:
        """The output of each max pooling layer."""
        return {"features.2": ("block", 32, 1), "features.5": ("block", 64, 1)}


class ConvNetConfig(Config):
    """Channels of the images and shape of the network."""

    in_channels: int = option(default=1, help="Channels of an image.", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)
    widths: tuple[int, ...] = option(default=(16, 32, 32), help="Output channels of each convolution.")
    kernel: int = option(default=3, help="Kernel size of the convolutions [pixels].", at_least=1)
    stride: int = option(default=1, help="Stride of the convolutions [pixels].", at_least=1)
    norm: str = option(default="none", help="Normalisation after each convolution.", choices=("none", "batch"))


class ConvNet(nn.Module):
    """Convolutions with ReLU, global average pooling, one linear layer; for images of any size.

    With one channel, ten classes and the default widths it has exactly 14,378 weights.
    """

    Config = ConvNetConfig

    def __init__(self, config: ConvNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvNetConfig()
        if not config.widths or any(width < 1 for width in config.widths):
            raise InvalidConfig(f"widths is {config.widths}; expected one or more whole numbers of 1 or more")
        channels = pairwise((config.in_channels, *config.widths))
        self.blocks = nn.Sequential(*(_conv_block(fan_in, fan_out, config) for fan_in, fan_out in channels))
        self.classifier = nn.Linear(config.widths[-1], config.classes)

    def forward(self, images: Images) -> Logits:
        """Logits of each class, or the value of a regression."""
        return self.classifier(self.blocks(images).mean((-2, -1)))

    def taps(self) -> Places:
        """The output of each convolution's ReLU."""
        return {f"blocks.{index}": ("block", width, 1) for index, width in enumerate(self.config.widths)}


class ResNetConfig(Config):
    """Shape of the images and number of classes."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=224, help="Height and width of an image [pixels].", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)


class _ResNet(nn.Module):
    """A ResNet of torchvision, which `_name` names.

    Departs: for images of 64 pixels or less, the first layers are one 3×3 convolution without pooling, as is usual for
    CIFAR; the original ones would reduce small images to a few pixels.
    """

    Config = ResNetConfig
    _name: ClassVar[str]

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        config = config or ResNetConfig()
        self.network = import_torchvision().models.get_model(self._name, weights=None, num_classes=config.classes)
        if config.image_size <= 64:
            self.network.conv1 = nn.Conv2d(config.in_channels, 64, 3, padding=1, bias=False)
            self.network.maxpool = nn.Identity()
        fit_channels(self.network, config.in_channels)

    def forward(self, images: Images) -> Logits:
        """Logits of each class, or the value of a regression."""
        return self.network(images)

    def taps(self) -> Places:
        """The output of each residual block."""
        return {
            f"network.{stage}.{index}": ("block", block.conv2.out_channels, 1)
            for stage in ("layer1", "layer2", "layer3", "layer4")
            for index, block in self.network.get_submodule(stage).named_children()
        }


class ResNet18(_ResNet):
    """Residual network of 18 layers with BatchNorm (He et al. 2015, arXiv:1512.03385)."""

    _name = "resnet18"


class ResNet34(_ResNet):
    """Residual network of 34 layers with BatchNorm (He et al. 2015, arXiv:1512.03385)."""

    _name = "resnet34"


def _conv_block(fan_in: int, fan_out: int, config: ConvNetConfig) -> nn.Sequential:
    normed = config.norm == "batch"
    convolution = nn.Conv2d(fan_in, fan_out, config.kernel, config.stride, padding=config.kernel // 2, bias=not normed)
    return nn.Sequential(convolution, *([nn.BatchNorm2d(fan_out)] if normed else []), nn.ReLU())
