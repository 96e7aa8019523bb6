"""Hosts: networks made of layers that can be run apart, so that a branch can grow between two of them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from ..core.text import shown
from .convolutional import Images, Logits
from .taps import Places
from .transformer import GPT, GPTConfig, Stream


class InjectionPoint(NamedTuple):
    """A place of a host where a branch can grow.

    Attributes:
        after_layer_idx: index of the layer whose output it is.
        position: share of the layers that come before it, in (0, 1].
        dim: channels, or embedding width.
    """

    after_layer_idx: int
    position: float
    dim: int


@runtime_checkable
class Host(Protocol):
    """A network whose layers can be run apart: from(through(x, i), i + 1) is forward(x), bit for bit.

    import torch
    from metaopt import get_target_model

    host, images = get_target_model("HostCNN", image_size=32).eval(), torch.randn(2, 3, 32, 32)
    (point,) = host.injection_points.values()  # after_layer_idx=1, position=2/3, dim=32
    features = host.forward_through_layer(images, point.after_layer_idx)  # [2, 32, 8, 8]
    assert host.forward_from_layer(features, point.after_layer_idx + 1).equal(host(images))
    """

    @property
    def injection_points(self) -> dict[str, InjectionPoint]:
        """The places where a branch can grow, by the name of their tap, first to last."""

    def forward_through_layer(self, inputs: Tensor, layer: int) -> Tensor:
        """The output of a layer, of the inputs of the network.

        Raises:
            InvalidConfig: there is no such layer.
        """

    def forward_from_layer(self, features: Tensor, layer: int) -> Tensor:
        """The output of the network, of what enters a layer.

        Raises:
            InvalidConfig: there is no such layer.
        """


class HostCNNConfig(Config):
    """Channels of the images and shape of the network."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=32, help="Height and width of an image [pixels].", at_least=1)
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)
    widths: tuple[int, ...] = option(default=(16, 32, 64), help="Channels of each block.", at_least=1)
    taps_after: tuple[int, ...] = option(default=(1,), help="Blocks after which a branch can grow.", at_least=0)
    norm: str = option(default="none", help="Normalisation after each convolution.", choices=("none", "batch"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or self.image_size < 2 ** len(self.widths):
            raise InvalidConfig(
                f"widths is {shown(list(self.widths))} and image_size {self.image_size}; expected one block or more, "
                "each of which halves the image"
            )
        if any(index >= len(self.widths) for index in self.taps_after):
            raise InvalidConfig(f"taps_after is {list(self.taps_after)}; expected indices below {len(self.widths)}")


class HostCNN(nn.Module):
    """Blocks of a 3×3 convolution, ReLU and 2×2 max pooling, global average pooling, and a linear layer.

    A branch can grow after its second block. On 32×32 images with three channels and ten classes it has exactly 24,234
    weights.
    """

    Config = HostCNNConfig

    def __init__(self, config: HostCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HostCNNConfig()
        channels = pairwise((config.in_channels, *config.widths))
        self.blocks = nn.ModuleList(_block(fan_in, fan_out, config.norm) for fan_in, fan_out in channels)
        self.classifier = nn.Linear(config.widths[-1], config.classes)

    @property
    def injection_points(self) -> dict[str, InjectionPoint]:
        """The output of each block after which a branch can grow."""
        widths = self.config.widths
        return _points(self.config.taps_after, widths)

    def forward(self, images: Images) -> Logits:
        """Logits of each class, or the value of a regression."""
        return self.forward_from_layer(images, 0)

    def forward_through_layer(self, images: Images, layer: int) -> Images:
        """The output of a block.

        Raises:
            InvalidConfig: there is no such block.
        """
        for block in self.blocks[: _checked(layer, len(self.blocks) - 1) + 1]:
            images = block(images)
        return images

    def forward_from_layer(self, features: Images, layer: int) -> Logits:
        """The output of the network, of what enters a block; with the number of blocks, of what leaves the last one.

        Raises:
            InvalidConfig: there is no such block.
        """
        for block in self.blocks[_checked(layer, len(self.blocks)) :]:
            features = block(features)
        return self.classifier(features.mean((-2, -1)))

    def taps(self) -> Places:
        """The output of each block."""
        return {f"blocks.{index}": ("block", width, 1) for index, width in enumerate(self.config.widths)}


class TransformerHostConfig(GPTConfig):
    """Vocabulary size, context length and shape of the network; smaller than those of `GPT`."""

    n_layer: int = option(default=2, help="Blocks [count].", at_least=1, at_most=1_000)
    n_embd: int = option(default=64, help="Embedding width; a multiple of n_head.", at_least=1)


class TransformerHost(GPT):
    """A causal language model with pre-normalisation and tied weights; a branch can grow after each layer."""

    Config = TransformerHostConfig

    def __init__(self, config: TransformerHostConfig | None = None) -> None:
        super().__init__(config or TransformerHostConfig())

    @property
    def injection_points(self) -> dict[str, InjectionPoint]:
        """The output of each block."""
        layers = self.config.n_layer
        return _points(range(layers), [self.config.n_embd] * layers)

    def forward_through_layer(self, tokens: Int[Tensor, "batch block"], layer: int) -> Stream:
        """The output of a block.

        Raises:
            InvalidConfig: there is no such block, or there are more tokens than `block_size`.
        """
        return self.blocks[: _checked(layer, len(self.blocks) - 1) + 1](self.embed(tokens))

    def forward_from_layer(self, stream: Stream, layer: int) -> Float[Tensor, "batch block vocabulary"]:
        """Logits, of what enters a block; with the number of blocks, of what leaves the last one.

        Raises:
            InvalidConfig: there is no such block.
        """
        return self.head(self.norm(self.blocks[_checked(layer, len(self.blocks)) :](stream)))


def _points(indices: Sequence[int], widths: Sequence[int]) -> dict[str, InjectionPoint]:
    layers = len(widths)
    return {f"blocks.{index}": InjectionPoint(index, (index + 1) / layers, widths[index]) for index in sorted(indices)}


def _checked(layer: int, largest: int) -> int:
    """The index of a layer, if there is one; a slice would take a negative one from the end."""
    if layer not in range(largest + 1):
        raise InvalidConfig(f"the layer is {shown(layer)}; expected an index from 0 to {largest}")
    return layer


def _block(fan_in: int, fan_out: int, norm: str) -> nn.Sequential:
    is_normed = norm == "batch"
    convolution = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=not is_normed)
    return nn.Sequential(convolution, *([nn.BatchNorm2d(fan_out)] if is_normed else []), nn.ReLU(), nn.MaxPool2d(2))
