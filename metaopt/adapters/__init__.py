"""Adapters: small trainable matrices beside the frozen ones of a network, which change it within a budget.

from metaopt.adapters import select_matrices

shapes = {f"blocks.{layer}.attn2.to_{part}.weight": (64, 64) for layer in range(4) for part in "qkv"}
chosen = select_matrices(shapes, include=r"cross_attn\\.(k|v)", layers="2-3")
print([matrix.module for matrix in chosen])  # blocks.2.attn2.to_k, …: the same modules under the other names
"""

from .aliases import ALIASES, WAN, AliasTable
from .budget import DeltaBudget
from .choice import chosen_adapters
from .config import AdapterConfig
from .lora import AdapterFacts, LowRank, adapters_of, change_of, insert_adapters
from .selection import Matrix, matrices_of, parse_layers, select_matrices

__all__ = [
    "ALIASES",
    "WAN",
    "AdapterConfig",
    "AdapterFacts",
    "AliasTable",
    "DeltaBudget",
    "LowRank",
    "Matrix",
    "adapters_of",
    "change_of",
    "chosen_adapters",
    "insert_adapters",
    "matrices_of",
    "parse_layers",
    "select_matrices",
]
