"""A decoder-only transformer: tokens in, logits of the next token out."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from .taps import Places, transformer_places

_INIT_STD = 0.02


class GPTConfig(Config):
    """The vocabulary and the shape of the network."""

    vocab_size: int = option(default=256, help="Tokens in the vocabulary [count].", at_least=1)
    block_size: int = option(default=64, help="Tokens that it sees at most [count].", at_least=1)
    n_layer: int = option(default=4, help="Blocks [count].", at_least=1)
    n_head: int = option(default=4, help="Attention heads of each block [count].", at_least=1)
    n_embd: int = option(default=128, help="Width of the embeddings; a multiple of the heads.", at_least=1)
    dropout: float = option(default=0.0, help="Share of activations that training drops.", at_least=0.0, below=1.0)
    tied: bool = option(default=True, help="Whether the embedding of tokens is also the last layer.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise InvalidConfig(f"n_embd is {self.n_embd}; expected a multiple of n_head, {self.n_head}")


class GPT(nn.Module):
    """A causal transformer with the normalisation before each part, as in GPT-2 (Radford et al. 2019)."""

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
        """Logits of the token that follows each token.

        Raises:
            InvalidConfig: more tokens than `block_size`.
        """
        length = tokens.shape[-1]
        if length > self.config.block_size:
            raise InvalidConfig(f"block_size is {self.config.block_size}, but {length} tokens came; raise it")
        places = torch.arange(length, device=tokens.device)
        embedded = self.dropout(self.tokens(tokens) + self.positions(places))
        return self.head(self.norm(self.blocks(embedded)))

    def taps(self) -> Places:
        """Places after each attention, each MLP and each block; the first two before they join the residual stream."""
        names = (f"blocks.{place}" for place in range(self.config.n_layer))
        return transformer_places(names, "attention", "mlp", self.config.n_embd)

    def _initialise(self) -> None:
        """Normal weights and no biases; what writes to the residual stream starts smaller the deeper the network."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                depth = 2 * self.config.n_layer if name.endswith(("attention.out.weight", "mlp.down.weight")) else 1
                nn.init.normal_(parameter, std=_INIT_STD / depth**0.5)


class _Block(nn.Module):
    """Attention, then an MLP, each added to what came in."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.n_embd)
        self.attention = _CausalAttention(config)
        self.mlp_norm = nn.LayerNorm(config.n_embd)
        self.mlp = _MLP(config)

    def forward(self, stream: Float[Tensor, "batch block width"]) -> Float[Tensor, "batch block width"]:
        stream = stream + self.attention(self.attention_norm(stream))
        return stream + self.mlp(self.mlp_norm(stream))


class _CausalAttention(nn.Module):
    """Each token looks at itself and at those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, stream: Float[Tensor, "batch block width"]) -> Float[Tensor, "batch block width"]:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(stream).chunk(3, dim=-1)
        )
        dropped = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped, is_causal=True)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


class _MLP(nn.Module):
    """Two linear layers, four times as wide in between."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, stream: Float[Tensor, "batch block width"]) -> Float[Tensor, "batch block width"]:
        return self.dropout(self.down(F.gelu(self.up(stream), approximate="tanh")))
