"""Adapters: which matrices of a network they change. Names and shapes only; no tensor is needed.

from metaopt.adapters import select_matrices

shapes = {f"blocks.{layer}.attn2.to_{part}.weight": (64, 64) for layer in range(4) for part in "qkv"}
chosen = select_matrices(shapes, include=r"cross_attn\\.(k|v)", layers="2-3")
print([matrix.module for matrix in chosen])  # blocks.2.attn2.to_k, …: the same modules under the other names
"""

from .aliases import ALIASES, WAN, AliasTable
from .selection import Matrix, matrices_of, parse_layers, select_matrices

__all__ = ["ALIASES", "WAN", "AliasTable", "Matrix", "matrices_of", "parse_layers", "select_matrices"]
