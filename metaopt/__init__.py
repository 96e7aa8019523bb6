"""Learn optimizers from how networks train.

Phase 1 trains target networks and records their weight trajectories; phase 2 trains a generative optimizer on
them; `Nowcast` puts a trained one to work inside any PyTorch training. `README.md` shows each.
"""

from pathlib import Path

from .errors import MetaoptError
from .nowcast import Nowcast
from .optimizers import GenerativeOptimizer, PerceiverOptimizer, get_optimizer_model
from .targets import TargetCNN, get_target_model
from .tasks import get_task
from .trajectories import Trajectory, WeightTrajectoryDataset
from .weights.files import load_model_weights, save_model_weights
from .weights.layout import Layout


def load_optimizer(source: str | Path) -> GenerativeOptimizer:
    """Load a trained optimizer as a PyTorch module; no code that comes with it runs.

    Args:
        source: a file, `models:/<name>@<alias>`, `models:/<name>/<version>`, a run ID or a `runs:/` URI.
    Raises:
        TrackingError: the tracking server has no such thing.
        FileFormatError: the file is damaged, or holds something else.
    """
    from .tracking import load_optimizer as load  # MLflow takes seconds to import, and only this needs it

    return load(source)


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
    "save_model_weights",
]
