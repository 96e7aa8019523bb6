"""Networks of the frozen cases that metaopt does not have: a small residual network, and a recurrent one."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to their input (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Conv2d(channels, width, 1, stride=2, bias=False)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch w h v"]:
        """Features at half the resolution."""
        return nn.functional.relu(self.layers(images) + self.shortcut(images))


class ResidualNetwork(nn.Module):
    """A convolution, residual blocks that halve the resolution, global average pooling, and a linear layer."""

    def __init__(self, in_channels: int = 3, classes: int = 10, widths: Sequence[int] = (16, 32, 32)) -> None:
        super().__init__()
        blocks = [ResidualBlock(channels, width) for channels, width in pairwise(widths)]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class RecurrentNetwork(nn.Module):
    """A language model of an embedding, LSTM layers, and a linear layer."""

    def __init__(self, vocab_size: int = 65, width: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.recurrent = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab_size"]:
        """Logits of the next token at each position."""
        return self.head(self.recurrent(self.embedding(tokens))[0])
