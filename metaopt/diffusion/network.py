"""TextToVideo: a text encoder and a video diffusion transformer, both of the libraries that run the large ones."""

from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.dependencies import import_extra
from ..core.errors import InvalidConfig
from .captions import END, PAD, mask_of
from .flow import Noisy, Rows, Times, unpack

_TIMESTEPS = 1000  # of the transformer, from t = 0 to 1

Embeddings = Float[Tensor, "batch length width"]
Videos = Float[Tensor, "batch channels frames height width"]


class TextToVideoConfig(Config):
    """Shapes of videos and prompts, and sizes of the encoder and the transformer."""

    video_shape: tuple[int, ...] = option(
        default=(3, 3, 16, 16), help="Channels, frames, height and width of a video.", at_least=1
    )
    prompt_length: int = option(default=8, help="Tokens of a prompt, padding included [count].", at_least=1)
    vocab_size: int = option(default=28, help="Vocabulary size [tokens].", at_least=2)
    tokenizer: str = option(default="", help="Digest of the tokenizer; the task gives it.")
    patch_size: tuple[int, ...] = option(
        default=(1, 4, 4), help="Frames, height and width of a patch, a token of the transformer.", at_least=1
    )
    layers: int = option(default=2, help="Blocks of the transformer [count].", at_least=1, at_most=1_000)
    heads: int = option(default=4, help="Attention heads of the transformer [count].", at_least=1)
    head_dim: int = option(default=12, help="Width of each head of the transformer; even.", at_least=6)
    ffn_dim: int = option(default=128, help="Hidden width of the transformer's feed-forward networks.", at_least=1)
    freq_dim: int = option(default=32, help="Width of the sinusoids of a time.", at_least=2)
    text_dim: int = option(default=48, help="Width of the embeddings of prompts.", at_least=1)
    text_layers: int = option(default=2, help="Blocks of the encoder [count].", at_least=1, at_most=1_000)
    text_heads: int = option(default=4, help="Attention heads of the encoder [count].", at_least=1)
    text_head_dim: int = option(default=12, help="Width of each head of the encoder.", at_least=1)
    text_ffn_dim: int = option(default=128, help="Hidden width of the encoder's feed-forward networks.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, parts in (("video_shape", 4), ("patch_size", 3)):
            if len(value := getattr(self, name)) != parts:
                raise InvalidConfig(f"{name} is {value}; expected {parts} numbers")
        if any(whole % part for whole, part in zip(self.video_shape[1:], self.patch_size, strict=True)):
            raise InvalidConfig(
                f"video_shape is {self.video_shape} and patch_size {self.patch_size}; expected frames, height and "
                "width that are multiples of those of a patch"
            )
        if self.head_dim % 2:
            raise InvalidConfig(f"head_dim is {self.head_dim}; expected an even number, because halves are rotated")


class TextToVideo(nn.Module):
    """A small video diffusion transformer with its text encoder, of the same classes as Wan 2.2."""

    Config = TextToVideoConfig

    def __init__(self, config: TextToVideoConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextToVideoConfig()
        self.encoder = _encoder(config)
        self.transformer = _transformer(config)

    def forward(self, rows: Rows) -> Float[Tensor, "batch numbers"]:
        """The velocity of each video, flattened."""
        noisy: Noisy = unpack(rows, self.config.video_shape)
        return self.velocity(noisy.videos, noisy.times, self.embed(noisy.tokens)).flatten(1)

    def embed(self, tokens: Int[Tensor, "batch length"]) -> Embeddings:
        """The embeddings of prompts, zero at padding."""
        mask = mask_of(tokens)
        hidden = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.finfo(torch.float32).min)
        found = self.encoder(input_ids=tokens, attention_mask=hidden[:, None, None, :]).last_hidden_state
        return found * mask.unsqueeze(-1)

    def velocity(self, videos: Videos, times: Times, embeddings: Embeddings) -> Videos:
        """The velocity noise - x_0."""
        return self.transformer(videos, times * _TIMESTEPS, embeddings, return_dict=False)[0]

    def null_tokens(self, batch: int) -> Int[Tensor, "batch length"]:
        """The tokens of empty prompts: an end, then padding."""
        tokens = torch.full((batch, self.config.prompt_length), PAD, device=next(self.parameters()).device)
        tokens[:, 0] = END
        return tokens


def _encoder(config: TextToVideoConfig) -> nn.Module:
    transformers = import_extra("transformers", "adapters")
    return transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=config.vocab_size,
            d_model=config.text_dim,
            d_kv=config.text_head_dim,
            d_ff=config.text_ffn_dim,
            num_layers=config.text_layers,
            num_heads=config.text_heads,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=END,
            attn_implementation="sdpa",
        )
    )


def _transformer(config: TextToVideoConfig) -> nn.Module:
    diffusers = import_extra("diffusers", "adapters")
    channels = config.video_shape[0]
    return diffusers.WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=channels,
        out_channels=channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.layers,
        rope_max_seq_len=max(64, *config.video_shape[1:]),
    )
