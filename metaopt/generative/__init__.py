"""Generative optimizers: they map past weights and two times to future weights."""

from typing import Any

from ..core.registry import Registry
from .base import GenerativeOptimizer
from .perceiver import PerceiverOptimizer

# Relative names: a registered model ships this package under another name.
_HERE = __name__
GENERATIVE_OPTIMIZERS = Registry(
    "generative optimizer",
    "metaopt.generative",
    {
        "Average": f"{_HERE}.extrapolation:Average",
        "Hold": f"{_HERE}.extrapolation:Hold",
        "Line": f"{_HERE}.extrapolation:Line",
        "PerceiverOptimizer": f"{_HERE}.perceiver:PerceiverOptimizer",
        "Slopes": f"{_HERE}.extrapolation:Slopes",
    },
    older_groups=("metaopt.optimizers",),
)
"""Generative optimizers by name, those of outside packages included."""


def get_optimizer_model(name: str, **config: Any) -> GenerativeOptimizer:
    """Build a generative optimizer by name.

    Raises:
        UnknownName: no such optimizer; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
    """
    kind = GENERATIVE_OPTIMIZERS.get(name)
    return kind(kind.Config.from_mapping(config))


__all__ = ["GENERATIVE_OPTIMIZERS", "GenerativeOptimizer", "PerceiverOptimizer", "get_optimizer_model"]
