"""torchvision's vision transformer, small by default and for images of any size."""

from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.dependencies import import_torchvision
from ..core.errors import InvalidConfig
from .builders import fit_channels
from .taps import Places, transformer_places


class VisionTransformerConfig(Config):
    """Shape of the images and of the network."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=32, help="Height and width of an image; a multiple of the patches' [pixels].")
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for a regression.", at_least=1)
    patch_size: int = option(default=4, help="Height and width of a patch [pixels].", at_least=1)
    n_layer: int = option(default=4, help="Blocks [count].", at_least=1)
    n_head: int = option(default=4, help="Attention heads of each block [count].", at_least=1)
    n_embd: int = option(default=128, help="Width of the embeddings; a multiple of the heads.", at_least=1)
    dropout: float = option(default=0.0, help="Share of activations that training drops.", at_least=0.0, below=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for whole, part in (("image_size", "patch_size"), ("n_embd", "n_head")):
            if (size := getattr(self, whole)) % getattr(self, part) or size < 1:
                raise InvalidConfig(f"{whole} is {size}; expected a multiple of {part}, {getattr(self, part)}")


class VisionTransformer(nn.Module):
    """A transformer over the patches of an image (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    Config = VisionTransformerConfig

    def __init__(self, config: VisionTransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VisionTransformerConfig()
        self.network = import_torchvision().models.VisionTransformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_layers=config.n_layer,
            num_heads=config.n_head,
            hidden_dim=config.n_embd,
            mlp_dim=4 * config.n_embd,
            dropout=config.dropout,
            num_classes=config.classes,
        )
        fit_channels(self.network, config.in_channels)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class, or the value of a regression."""
        return self.network(images)

    def taps(self) -> Places:
        """Places after each attention, each MLP and each block; the first two before they join the residual stream."""
        names = (f"network.encoder.layers.{name}" for name, _ in self.network.encoder.layers.named_children())
        return transformer_places(names, "self_attention", "mlp", self.config.n_embd)
