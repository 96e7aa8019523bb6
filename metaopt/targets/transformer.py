"""Transformers: GPT for tokens and VisionTransformer for images; attention that `torch.func.vmap` can batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.config import Config, option
from ..core.dependencies import import_torchvision
from ..core.errors import InvalidConfig
from .libraries import fit_channels
from .taps import Places, transformer_places

_INIT_STD = 0.02

Stream = Float[Tensor, "batch block width"]
"""The residual stream."""


class GPTConfig(Config):
    """Vocabulary size, context length and shape of the network."""

    vocab_size: int = option(default=256, help="Vocabulary size [tokens].", at_least=1)
    block_size: int = option(default=64, help="Context length [tokens].", at_least=1)
    n_layer: int = option(default=4, help="Blocks [count].", at_least=1, at_most=1_000)
    n_head: int = option(default=4, help="Attention heads of each block [count].", at_least=1)
    n_embd: int = option(default=128, help="Embedding width; a multiple of n_head.", at_least=1)
    dropout: float = option(default=0.0, help="Dropout probability.", at_least=0.0, below=1.0)
    tied: bool = option(default=True, help="Share the weights of the token embedding and the output layer.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise InvalidConfig(f"n_embd is {self.n_embd}; expected a multiple of n_head, {self.n_head}")


class GPT(nn.Module):
    """Decoder-only transformer with pre-normalisation, as GPT-2 (Radford et al. 2019)."""

    Config = GPTConfig

    def __init__(self, config: GPTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GPTConfig()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(_Block(config) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.tokens.weight
        self._initialise()

    def forward(self, tokens: Int[Tensor, "batch block"]) -> Float[Tensor, "batch block vocabulary"]:
        """Logits of the next token at each position.

        Raises:
            InvalidConfig: more tokens than `block_size`.
        """
        return self.head(self.norm(self.blocks(self.embed(tokens))))

    def embed(self, tokens: Int[Tensor, "batch block"]) -> Stream:
        """The embeddings of tokens and their positions, which enter the first block.

        Raises:
            InvalidConfig: more tokens than `block_size`.
        """
        length = tokens.shape[-1]
        if length > self.config.block_size:
            raise InvalidConfig(f"block_size is {self.config.block_size}, but {length} tokens came; raise it")
        positions = torch.arange(length, device=tokens.device)
        return self.dropout(self.tokens(tokens) + self.positions(positions))

    def taps(self) -> Places:
        """The outputs of each attention and MLP, before they are added to the residual stream, and of each block."""
        names = (f"blocks.{index}" for index in range(self.config.n_layer))
        return transformer_places(names, "attention", "mlp", self.config.n_embd)

    def _initialise(self) -> None:
        """Normal weights and zero biases; layers that write to the residual stream are scaled by 1 / √(2 · n_layer)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                depth = 2 * self.config.n_layer if name.endswith(("attention.out.weight", "mlp.down.weight")) else 1
                nn.init.normal_(parameter, std=_INIT_STD / depth**0.5)


class VisionTransformerConfig(Config):
    """Shape of the images and of the network."""

    in_channels: int = option(default=3, help="Channels of an image.", at_least=1)
    image_size: int = option(default=32, help="Height and width of an image; a multiple of patch_size [pixels].")
    classes: int = option(default=10, help="Number of outputs: classes, or 1 for regression.", at_least=1)
    patch_size: int = option(default=4, help="Height and width of a patch [pixels].", at_least=1)
    n_layer: int = option(default=4, help="Blocks [count].", at_least=1, at_most=1_000)
    n_head: int = option(default=4, help="Attention heads of each block [count].", at_least=1)
    n_embd: int = option(default=128, help="Embedding width; a multiple of n_head.", at_least=1)
    dropout: float = option(default=0.0, help="Dropout probability.", at_least=0.0, below=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for whole, part in (("image_size", "patch_size"), ("n_embd", "n_head")):
            if (size := getattr(self, whole)) % getattr(self, part) or size < 1:
                raise InvalidConfig(f"{whole} is {size}; expected a multiple of {part}, {getattr(self, part)}")


class VisionTransformer(nn.Module):
    """Transformer encoder over image patches (Dosovitskiy et al. 2020, arXiv:2010.11929).

    The network is torchvision's; its defaults are small.
    """

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
        """The outputs of each attention and MLP, before they are added to the residual stream, and of each block."""
        names = (f"network.encoder.layers.{name}" for name, _ in self.network.encoder.layers.named_children())
        return transformer_places(names, "self_attention", "mlp", self.config.n_embd)


@contextmanager
def vmappable() -> Iterator[None]:
    """Disable fused attention kernels while the block runs: `torch.func.vmap` cannot batch them and would loop."""
    mha = torch.backends.mha
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fused)


class _Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.n_embd)
        self.attention = _CausalAttention(config)
        self.mlp_norm = nn.LayerNorm(config.n_embd)
        self.mlp = _MLP(config)

    def forward(self, stream: Stream) -> Stream:
        stream = stream + self.attention(self.attention_norm(stream))
        return stream + self.mlp(self.mlp_norm(stream))


class _CausalAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, stream: Stream) -> Stream:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(stream).chunk(3, dim=-1)
        )
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


class _MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, stream: Stream) -> Stream:
        return self.dropout(self.down(F.gelu(self.up(stream), approximate="tanh")))
