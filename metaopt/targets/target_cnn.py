"""The small convolutional network that this project's specification trains."""

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from .taps import Places


class TargetCNNConfig(Config):
    """Shape of the images and width of the network."""

    in_channels: int = option(default=1, help="Channels of an image.", at_least=1)
    image_size: int = option(default=28, help="Height and width of an image [pixels].", at_least=4)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for a regression.", at_least=1)
    hidden: int = option(default=128, help="Width of the hidden linear layer.", at_least=1)


class TargetCNN(nn.Module):
    """Two convolutions (32, 64 channels), each halved by pooling, then two linear layers.

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

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class, or the value of a regression."""
        return self.classifier(self.features(images))

    def taps(self) -> Places:
        """A place after the pooling of each convolution."""
        return {"features.2": ("block", 32, 1), "features.5": ("block", 64, 1)}
