"""What each command does, callable from Python: every workflow takes a configuration and returns what came of it.

    from metaopt import workflows
    from metaopt.recording.config import TrainTargetConfig

    recorded = workflows.record(TrainTargetConfig(run_name="mlp", target_model="MLP", epochs=2))
    print(recorded.folders, recorded.validation_losses)

Each runs as an MLflow run of its own and raises the errors of `metaopt.core.errors`.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from .evaluate_optimizer import evaluate as evaluate
    from .generate_weights import generate as generate
    from .main_job import main as main
    from .record_trajectories import record as record
    from .train_optimizer import train as train

_MODULES = {
    "evaluate": "evaluate_optimizer",
    "generate": "generate_weights",
    "main": "main_job",
    "record": "record_trajectories",
    "train": "train_optimizer",
}

__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
