"""Base optimizers by name: those of `torch.optim`, of `schedulefree`, and of outside packages.

A base optimizer moves the weights of a target at every step; a generative optimizer (`metaopt.generative`) predicts
where they will be.

    import torch
    from metaopt.optimizers import build_optimizer

    optimizer = build_optimizer("AdamW", [torch.nn.Parameter(torch.zeros(3))], lr=1e-3, options={"weight_decay": 0.0})
"""

from ..core.moved import moved_names
from .registry import BASE_OPTIMIZERS, build_optimizer, evaluation_mode

__getattr__ = moved_names(
    __name__,
    {
        "GenerativeOptimizer": "metaopt.generative:GenerativeOptimizer",
        "PerceiverOptimizer": "metaopt.generative:PerceiverOptimizer",
        "get_optimizer_model": "metaopt.generative:get_optimizer_model",
        "OPTIMIZERS": "metaopt.generative:GENERATIVE_OPTIMIZERS",
    },
)

__all__ = ["BASE_OPTIMIZERS", "build_optimizer", "evaluation_mode"]
