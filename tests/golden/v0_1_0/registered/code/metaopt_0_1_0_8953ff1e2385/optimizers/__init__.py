"""Generative optimizers: past weights and two times in, future weights out. One file each; one line here each."""

from typing import Any

from ..registry import Registry
from .base import GenerativeOptimizer
from .perceiver import PerceiverOptimizer

# Relative names: a registered model ships this package under another name.
_HERE = __name__
OPTIMIZERS = Registry(
    "optimizer model",
    "metaopt.optimizers",
    {
        "Average": f"{_HERE}.average:Average",
        "Hold": f"{_HERE}.hold:Hold",
        "Line": f"{_HERE}.line:Line",
        "PerceiverOptimizer": f"{_HERE}.perceiver:PerceiverOptimizer",
        "Slopes": f"{_HERE}.slopes:Slopes",
    },
)
"""Generative optimizers by name, those of outside packages included."""


def get_optimizer_model(name: str, **config: Any) -> GenerativeOptimizer:
    """Build a generative optimizer by name.

    Raises:
        UnknownName: no such optimizer; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
    """
    kind = OPTIMIZERS.get(name)
    return kind(kind.Config.from_mapping(config))


__all__ = ["OPTIMIZERS", "GenerativeOptimizer", "PerceiverOptimizer", "get_optimizer_model"]
