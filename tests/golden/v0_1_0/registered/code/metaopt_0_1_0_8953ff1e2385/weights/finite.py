"""Whether weights are still numbers."""

import torch
from torch import Tensor


def is_finite(weights: Tensor) -> bool:
    """Whether no value is infinite or NaN; needs no memory beside floating-point tensors, however large they are."""
    if weights.is_floating_point() and weights.numel():
        weights = torch.stack(weights.aminmax())  # NaN is an extreme, too; many times quicker than to judge each value
    return bool(torch.isfinite(weights).all())
