"""Generative optimizers by name: modules that forecast the weights of a network from the history of its training.

`GENERATIVE_OPTIMIZERS` names the module that defines each of them.
"""

from typing import Any

from ..core.config import build_configured
from ..core.registry import Registry
from .base import GenerativeOptimizer
from .perceiver import PerceiverOptimizer

_HERE = __name__  # registered models ship this package under another name
GENERATIVE_OPTIMIZERS = Registry(
    "generative optimizer",
    "metaopt.generative",
    {
        "Average": f"{_HERE}.extrapolation:Average",
        "Hold": f"{_HERE}.extrapolation:Hold",
        "HopeOptimizer": f"{_HERE}.hope:HopeOptimizer",
        "Line": f"{_HERE}.extrapolation:Line",
        "PerceiverOptimizer": f"{_HERE}.perceiver:PerceiverOptimizer",
        "Slopes": f"{_HERE}.extrapolation:Slopes",
    },
    older_groups=("metaopt.optimizers",),
    base=GenerativeOptimizer,
)
"""Generative optimizers by name, including those of installed plug-ins."""


def get_optimizer_model(name: str, **config: Any) -> GenerativeOptimizer:
    """Build a generative optimizer by name.

        import metaopt

        slopes = metaopt.get_optimizer_model("Slopes", history=5)
        untrained = metaopt.get_optimizer_model("PerceiverOptimizer", dim=64, start="slopes")

    Args:
        config: options of the optimizer; `metaopt list generative-optimizers NAME` shows them.
    Raises:
        UnknownName: there is no such optimizer; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
    """
    optimizer: GenerativeOptimizer = build_configured(GENERATIVE_OPTIMIZERS.get(name), config)
    return optimizer


__all__ = ["GENERATIVE_OPTIMIZERS", "GenerativeOptimizer", "PerceiverOptimizer", "get_optimizer_model"]
