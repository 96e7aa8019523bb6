"""TextToVideo: a text encoder and a video diffusion transformer, both of the libraries that run the large ones."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.config import Config, option
from ..core.dependencies import import_extra
from ..core.errors import InvalidConfig
from ..targets.taps import Places, transformer_places
from .captions import END, PAD, mask_of
from .embeddings import PromptTable
from .flow import Noisy, Rows, Times, unpack

_TIMESTEPS = 1000  # of the transformer, from t = 0 to 1

Embeddings = Float[Tensor, "batch length width"]
Videos = Float[Tensor, "batch channels frames height width"]


class TextToVideoConfig(Config):
    """Shapes of videos and prompts, and sizes of the encoder and the transformer."""

    video_shape: tuple[int, ...] = option(
        default=(3, 3, 12, 12), help="Channels, frames, height and width of a video.", at_least=1
    )
    prompt_length: int = option(default=8, help="Tokens of a prompt, padding included [count].", at_least=1)
    vocab_size: int = option(default=28, help="Vocabulary size [tokens].", at_least=2)
    tokenizer: str = option(default="", help="Digest of the tokenizer; the task gives it.")
    patch_size: tuple[int, ...] = option(
        default=(1, 3, 3), help="Frames, height and width of a patch, a token of the transformer.", at_least=1
    )
    num_layers: int = option(default=3, help="Blocks of the transformer [count].", at_least=1, at_most=1_000)
    heads: int = option(default=4, help="Attention heads of the transformer [count].", at_least=1)
    head_dim: int = option(default=12, help="Width of each head of the transformer; even.", at_least=6)
    ffn_dim: int = option(default=128, help="Hidden width of the transformer's feed-forward networks.", at_least=1)
    freq_dim: int = option(default=32, help="Width of the sinusoids of a time.", at_least=2)
    text_dim: int = option(default=48, help="Width of the embeddings of prompts.", at_least=1)
    text_layers: int = option(default=2, help="Blocks of the encoder [count].", at_least=1, at_most=1_000)
    text_heads: int = option(default=4, help="Attention heads of the encoder [count].", at_least=1)
    text_head_dim: int = option(default=12, help="Width of each head of the encoder.", at_least=1)
    text_ffn_dim: int = option(default=128, help="Hidden width of the encoder's feed-forward networks.", at_least=1)
    cache_embeddings: bool = option(
        default=False, help="Freeze the encoder, and compute the embeddings of each prompt once; they are kept on disk."
    )

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
    """A video diffusion transformer with its text encoder, of the classes that run Wan 2.2.

        import metaopt
        from metaopt.diffusion import sample

        task = metaopt.load_task("captioned-shapes", examples=100)
        model = metaopt.get_target_model("TextToVideo", task.model_facts)
        inputs, labels = task.splits["train"][:4]
        loss = task.loss(model(inputs), labels)
        video = sample(model, task.tokenizer.encode(["a red square moving left"]), steps=2)  # [1, 3, 3, 12, 12]

    `transformer` is a `diffusers.WanTransformer3DModel` and `encoder` a `transformers.UMT5EncoderModel`, both with
    random weights. The transformer attends to all places of a prompt, so embeddings are zero at padding, as in Wan.
    With `cache_embeddings`, the encoder is frozen. Its embeddings are looked up in a table, unless it is made trainable
    again or its weights are replaced for a call (`torch.func.functional_call`).

    References: Wan et al. 2025, arXiv:2503.20314; Chung et al. 2023 (UMT5), arXiv:2304.09151. Departs: videos are
    pixels and not latents of an autoencoder, and all weights are trained.
    """

    Config = TextToVideoConfig

    def __init__(self, config: TextToVideoConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextToVideoConfig()
        self.encoder = _encoder(config)
        self.transformer = _transformer(config)
        if config.cache_embeddings:
            self.encoder.requires_grad_(False)
        self._table = PromptTable(self.encoder, self.encode, config.tokenizer) if config.cache_embeddings else None

    def forward(self, rows: Rows) -> Float[Tensor, "batch numbers"]:
        """The velocity of each video, flattened."""
        noisy = self.unpack(rows)
        return self.velocity(noisy.videos, noisy.times, self.embed(noisy.tokens)).flatten(1)

    def unpack(self, rows: Rows) -> Noisy:
        """The videos, times and tokens in the inputs."""
        return unpack(rows, self.config.video_shape)

    def embed(self, tokens: Int[Tensor, "batch length"]) -> Embeddings:
        """The embeddings of prompts, zero at padding; from the table if embeddings are cached."""
        weights = self.encoder.parameters()
        if self._table and all(isinstance(each, nn.Parameter) and not each.requires_grad for each in weights):
            return self._table.embeddings(tokens)
        return self.encode(tokens)

    def taps(self) -> Places:
        """The outputs of each attention, feed-forward network and block, of the encoder and of the transformer."""
        of_encoder, of_transformer = self.config.text_dim, self.config.heads * self.config.head_dim
        blocks = [f"transformer.blocks.{number}" for number in range(self.config.num_layers)]
        return {
            **transformer_places(
                (f"encoder.encoder.block.{number}" for number in range(self.config.text_layers)),
                "layer.0.SelfAttention", "layer.1.DenseReluDense", of_encoder,
            ),
            **transformer_places(blocks, "attn1", "ffn", of_transformer),
            **{f"{block}.attn2": ("attention", of_transformer, -1) for block in blocks},
        }  # fmt: skip

    def encode(self, tokens: Int[Tensor, "batch length"]) -> Embeddings:
        """The embeddings of prompts, zero at padding, computed by the encoder."""
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
        num_layers=config.num_layers,
        rope_max_seq_len=max(64, *config.video_shape[1:]),
    )
