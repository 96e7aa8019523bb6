"""Blueprints for feature maps [batch, dim, height, width]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .blueprints import blueprint

Maps = Float[Tensor, "batch dim height width"]

_REDUCTION = 4  # of the channels between the two layers of squeeze-and-excitation
_FEW = 4  # units between them; of fewer, it often happens that all are below zero for every input
_GROUPS = 8


@blueprint("cnn", "norm", lambda dim: 2 * dim, "Group normalisation with a scale and a shift of each channel.")
def norm(dim: int) -> nn.Module:
    """δ(h) = γ ⊙ GroupNorm(h) + β (Wu and He 2018, arXiv:1803.08494)."""
    return nn.GroupNorm(next(groups for groups in range(min(_GROUPS, dim), 0, -1) if dim % groups == 0), dim)


@blueprint(
    "cnn",
    "attention",
    lambda dim: 2 * dim * _squeezed(dim) + _squeezed(dim) + dim,
    "Squeeze-and-excitation: a weight of each channel, from the means of all.",
)
def squeeze_excite(dim: int) -> nn.Module:
    """Squeeze-and-excitation, see `SqueezeExcite`."""
    return SqueezeExcite(dim)


class SqueezeExcite(nn.Module):
    """δ(h) = h ⊙ (2 σ(W₂ relu(W₁ mean(h))) − 1) (Hu et al. 2018, arXiv:1709.01507), zero where W₂ is.

    Departs: there are two hidden units at least. Where there are two or three, the first two begin with opposite
    weights, so that one of them is above zero and learns, whatever h is.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(dim, _squeezed(dim))
        self.excite = nn.Linear(_squeezed(dim), dim)
        if _squeezed(dim) < _FEW:
            with torch.no_grad():
                self.squeeze.weight[1] = -self.squeeze.weight[0]
                self.squeeze.bias[1] = -self.squeeze.bias[0]

    def forward(self, maps: Maps) -> Maps:
        """The change of the features."""
        weights = self.excite(self.squeeze(maps.mean((-2, -1))).relu())
        return maps * (2 * weights.sigmoid() - 1)[..., None, None]


@blueprint(
    "cnn", "depthwise", lambda dim: 9 * dim + dim + dim * dim + dim, "Depthwise separable convolution, 3×3 then 1×1."
)
def depthwise(dim: int) -> nn.Module:
    """A 3×3 convolution of each channel, ReLU, and a 1×1 convolution (Howard et al. 2017, arXiv:1704.04861)."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.ReLU(), nn.Conv2d(dim, dim, 1))


@blueprint("cnn", "conv", lambda dim: 9 * dim * dim + dim + dim * dim + dim, "Convolution, 3×3 then 1×1.")
def conv(dim: int) -> nn.Module:
    """A 3×3 convolution, ReLU, and a 1×1 convolution."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 1))


def _squeezed(dim: int) -> int:
    return max(2, dim // _REDUCTION)
