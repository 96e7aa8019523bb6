"""Learn optimizers from how networks train.

Phase 1 trains target networks and records their weight trajectories; phase 2 trains a generative optimizer on
them; `Nowcast` puts a trained one to work inside any PyTorch training. `README.md` shows each.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import MetaoptError
    from .nowcast import Nowcast, load_optimizer, reestimate_batchnorm
    from .optimizers import GenerativeOptimizer, PerceiverOptimizer, get_optimizer_model
    from .targets import TargetCNN, get_target_model
    from .tasks import get_task
    from .trajectories import Trajectory, WeightTrajectoryDataset
    from .weights.files import load_model_weights, save_model_weights
    from .weights.layout import Layout

__all__ = [
    "GenerativeOptimizer",
    "Layout",
    "MetaoptError",
    "Nowcast",
    "PerceiverOptimizer",
    "TargetCNN",
    "Trajectory",
    "WeightTrajectoryDataset",
    "get_optimizer_model",
    "get_target_model",
    "get_task",
    "load_model_weights",
    "load_optimizer",
    "reestimate_batchnorm",
    "save_model_weights",
]

_ROOMS = ("errors", "nowcast", "optimizers", "targets", "tasks", "trajectories", "weights.files", "weights.layout")


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: torch takes seconds, and a shell that completes a word has none."""
    if name in __all__:
        for room in (import_module(f".{each}", __name__) for each in _ROOMS):
            if name in getattr(room, "__all__", vars(room)):
                return getattr(room, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
