"""Adapters: small trainable matrices beside the frozen ones of a network, which change it within a budget.

from metaopt.adapters import select_matrices

shapes = {f"blocks.{layer}.attn2.to_{part}.weight": (64, 64) for layer in range(4) for part in "qkv"}
chosen = select_matrices(shapes, include=r"cross_attn\\.(k|v)", layers="2-3")
print([matrix.module for matrix in chosen])  # blocks.2.attn2.to_k, …: the same modules under the other names

Only what is used is imported: choosing matrices by name needs no torch.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from .aliases import ALIASES as ALIASES
    from .aliases import WAN as WAN
    from .aliases import AliasTable as AliasTable
    from .budget import DeltaBudget as DeltaBudget
    from .budget import within_budget as within_budget
    from .choice import chosen_adapters as chosen_adapters
    from .config import AdapterConfig as AdapterConfig
    from .config import FineTuningConfig as FineTuningConfig
    from .export import export_adapter as export_adapter
    from .export import load_adapter as load_adapter
    from .fine_tuning import FineTuning as FineTuning
    from .initial_weights import InitialWeights as InitialWeights
    from .initial_weights import read_initial_weights as read_initial_weights
    from .lora import AdapterFacts as AdapterFacts
    from .lora import LowRank as LowRank
    from .lora import adapt_as as adapt_as
    from .lora import adapters_of as adapters_of
    from .lora import change_of as change_of
    from .lora import insert_adapters as insert_adapters
    from .merging import merged as merged
    from .selection import Matrix as Matrix
    from .selection import matrices_of as matrices_of
    from .selection import parse_layers as parse_layers
    from .selection import select_matrices as select_matrices

_MODULES = {
    "ALIASES": "aliases",
    "WAN": "aliases",
    "AdapterConfig": "config",
    "AdapterFacts": "lora",
    "AliasTable": "aliases",
    "DeltaBudget": "budget",
    "FineTuning": "fine_tuning",
    "FineTuningConfig": "config",
    "InitialWeights": "initial_weights",
    "LowRank": "lora",
    "Matrix": "selection",
    "adapt_as": "lora",
    "adapters_of": "lora",
    "change_of": "lora",
    "chosen_adapters": "choice",
    "export_adapter": "export",
    "insert_adapters": "lora",
    "load_adapter": "export",
    "matrices_of": "selection",
    "merged": "merging",
    "parse_layers": "selection",
    "read_initial_weights": "initial_weights",
    "select_matrices": "selection",
    "within_budget": "budget",
}

__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
