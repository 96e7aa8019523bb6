"""Blueprints for a residual stream [batch, tokens, dim]. No output of theirs depends on later tokens."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .blueprints import blueprint
from .vector import lora_weights, low_rank, mlp_weights, normed_mlp

Stream = Float[Tensor, "batch tokens dim"]

_HEADS = 4


@blueprint("transformer", "norm", lambda dim: 2 * dim, "Layer normalisation with a scale and a shift of each feature.")
def norm(dim: int) -> nn.Module:
    """δ(h) = γ ⊙ LayerNorm(h) + β, of each token."""
    return nn.LayerNorm(dim)


@blueprint("transformer", "lora", lora_weights, "Two matrices whose product has an eighth of the full rank.")
def lora(dim: int) -> nn.Module:
    """A product of two matrices of low rank, of each token."""
    return low_rank(dim)


@blueprint("transformer", "mlp", mlp_weights, "Layer normalisation and two linear layers with GELU.")
def mlp(dim: int) -> nn.Module:
    """A normed MLP, of each token."""
    return normed_mlp(dim)


@blueprint(
    "transformer", "attention", lambda dim: 2 * dim + 4 * (dim * dim + dim), "Causal attention after a layer norm."
)
def causal_attention(dim: int) -> nn.Module:
    """Causal attention, see `CausalAttention`."""
    return CausalAttention(dim)


class CausalAttention(nn.Module):
    """δ(h) = W attention(LayerNorm(h)): each token attends to itself and to those before it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(_HEADS, 0, -1) if dim % heads == 0)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, stream: Stream) -> Stream:
        """The change of the stream."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm(stream)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))
