"""Blueprints for features [batch, dim], such as those of an MLP. They treat any shape [*, dim] alike."""

from torch import nn

from .blueprints import blueprint

EXPANSION = 4
"""Width of the hidden layer of an MLP over that of its input."""

_REDUCTION = 8  # of the width to the rank


def lora_weights(dim: int) -> int:
    """Weights of `low_rank` [count]."""
    return 2 * dim * rank_of(dim)


def mlp_weights(dim: int) -> int:
    """Weights of `normed_mlp` [count]."""
    return 2 * dim + 2 * EXPANSION * dim * dim + EXPANSION * dim + dim


def rank_of(dim: int) -> int:
    """The rank of `low_rank`: an eighth of the width."""
    return max(1, dim // _REDUCTION)


def low_rank(dim: int) -> nn.Module:
    """δ(h) = B A h, with A of a rank of an eighth of the width (Hu et al. 2021, arXiv:2106.09685)."""
    return nn.Sequential(nn.Linear(dim, rank_of(dim), bias=False), nn.Linear(rank_of(dim), dim, bias=False))


def normed_mlp(dim: int) -> nn.Module:
    """δ(h) = W₂ gelu(W₁ LayerNorm(h)), four times as wide in between."""
    hidden = EXPANSION * dim
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


@blueprint("vector", "norm", lambda dim: 2 * dim, "Layer normalisation with a scale and a shift of each feature.")
def norm(dim: int) -> nn.Module:
    """δ(h) = γ ⊙ LayerNorm(h) + β."""
    return nn.LayerNorm(dim)


@blueprint("vector", "lora", lora_weights, "Two matrices whose product has an eighth of the full rank.")
def lora(dim: int) -> nn.Module:
    """A product of two matrices of low rank."""
    return low_rank(dim)


@blueprint("vector", "mlp", mlp_weights, "Layer normalisation and two linear layers with GELU.")
def mlp(dim: int) -> nn.Module:
    """A normed MLP."""
    return normed_mlp(dim)
