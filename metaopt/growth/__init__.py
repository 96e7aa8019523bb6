"""Growth: branches that germinate in a network while it trains, are blended in, and stay or are removed."""

from .blueprints import BLUEPRINTS, Blueprint, blueprint, blueprint_of, blueprints_of
from .config import GrowthConfig
from .growth import Growth
from .growth_seed import GrowthSeed, grow, grow_as
from .places import Place, places
from .stages import Stage

__all__ = [
    "BLUEPRINTS",
    "Blueprint",
    "Growth",
    "GrowthConfig",
    "GrowthSeed",
    "Place",
    "Stage",
    "blueprint",
    "blueprint_of",
    "blueprints_of",
    "grow",
    "grow_as",
    "places",
]
