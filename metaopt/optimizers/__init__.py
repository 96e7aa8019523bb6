"""Base optimizers by name: those of `torch.optim`, of `schedulefree`, and of installed plug-ins.

A base optimizer updates the weights of a target at every step. A generative optimizer (`metaopt.generative`) forecasts
them.
"""

from ..core.moved import moved_names
from .registry import BASE_OPTIMIZERS, build_optimizer, evaluation_mode, optimizer_step

__getattr__ = moved_names(
    __name__,
    {
        "GenerativeOptimizer": "metaopt.generative:GenerativeOptimizer",
        "PerceiverOptimizer": "metaopt.generative:PerceiverOptimizer",
        "get_optimizer_model": "metaopt.generative:get_optimizer_model",
        "OPTIMIZERS": "metaopt.generative:GENERATIVE_OPTIMIZERS",
    },
)

__all__ = ["BASE_OPTIMIZERS", "build_optimizer", "evaluation_mode", "optimizer_step"]
