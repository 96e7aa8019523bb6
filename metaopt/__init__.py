"""Learn optimizers from how networks train.

Phase 1 trains target networks and records their weight trajectories; phase 2 trains a generative optimizer on
them; `Nowcast` puts a trained one to work inside any PyTorch training. `README.md` shows each.
"""

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
