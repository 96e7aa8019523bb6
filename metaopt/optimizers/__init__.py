"""Base optimizers by name: of `torch.optim`, `schedulefree` and `pytorch_optimizer`, of this package, and of plug-ins.

A base optimizer updates the weights of a target at every step. A generative optimizer (`metaopt.generative`) forecasts
them. Deep optimizers (Behrouz et al. 2025, arXiv:2512.24695) are memories of gradients.
"""

from ..core.moved import moved_names
from .associative_momentum import DeltaMomentum, PreconditionedMomentum
from .deep_momentum import DMGD
from .delta_descent import DeltaGradientDescent
from .learned_soap import LearnedSOAP
from .orthogonal import M3, MuonMemory
from .outer_momentum import EMANesterov, OuterNesterov
from .primal_averaging import PrimalAveraging
from .registry import BASE_OPTIMIZERS, build_optimizer, evaluation_mode, optimizer_for, optimizer_step, without_momentum

__getattr__ = moved_names(
    __name__,
    {
        "GenerativeOptimizer": "metaopt.generative:GenerativeOptimizer",
        "PerceiverOptimizer": "metaopt.generative:PerceiverOptimizer",
        "get_optimizer_model": "metaopt.generative:get_optimizer_model",
        "OPTIMIZERS": "metaopt.generative:GENERATIVE_OPTIMIZERS",
    },
)

__all__ = [
    "BASE_OPTIMIZERS",
    "DMGD",
    "M3",
    "DeltaGradientDescent",
    "DeltaMomentum",
    "EMANesterov",
    "LearnedSOAP",
    "MuonMemory",
    "OuterNesterov",
    "PreconditionedMomentum",
    "PrimalAveraging",
    "build_optimizer",
    "evaluation_mode",
    "optimizer_for",
    "optimizer_step",
    "without_momentum",
]
