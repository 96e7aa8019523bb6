"""Attention under `torch.func.vmap`, which computes the outputs of many weight vectors at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def vmappable() -> Iterator[None]:
    """Compute attention by operations that vmap can batch; its fused kernels would run one by one, with a warning."""
    mha = torch.backends.mha
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fused)
