"""Nested learning: memories that learn while a network is used, and levels that learn at their own pace.

Behrouz et al. 2025, Nested Learning, arXiv:2512.24695; Behrouz et al. 2024, Titans, arXiv:2501.00663.
"""

from .carried_memory import MemoryLayer
from .continuum import ContinuumMemory
from .hope import Hope, HopeConfig
from .hope_block import HopeBlock
from .hope_memory import memory_layer
from .levels import Levels
from .memory import AssociativeMemory, LinearMemory, MemoryState, Rates
from .self_modifier import ModifierState, SelfModifier
from .self_writes import Safeguards
from .titan import TitanMemory, TitanState

__all__ = [
    "AssociativeMemory",
    "ContinuumMemory",
    "Hope",
    "HopeBlock",
    "HopeConfig",
    "Levels",
    "LinearMemory",
    "MemoryLayer",
    "MemoryState",
    "ModifierState",
    "Rates",
    "Safeguards",
    "SelfModifier",
    "TitanMemory",
    "TitanState",
    "memory_layer",
]
