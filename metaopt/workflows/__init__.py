"""Workflows: the commands as Python functions. Each takes a configuration and returns its results as a dataclass.

    from metaopt import workflows

    recorded = workflows.record(workflows.TrainTargetConfig(run_name="mlp", target_model="MLP", epochs=2))
    print(recorded.folders, recorded.validation_losses)

Each call is an MLflow run, apart from `diagnose`, `export_adapter` and `inspect`. Errors are those of
`metaopt.core.errors`.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from ..comparison.config import CompareConfig as CompareConfig
    from ..evaluation.config import EvaluateConfig as EvaluateConfig
    from ..metatraining.config import TrainOptimizerConfig as TrainOptimizerConfig
    from ..recording.config import TrainTargetConfig as TrainTargetConfig
    from ..reinforcement.config import TrainControllerConfig as TrainControllerConfig
    from .adapter_files import ExportAdapterConfig as ExportAdapterConfig
    from .adapter_files import export_adapter as export_adapter
    from .diagnose_change import DiagnoseConfig as DiagnoseConfig
    from .diagnose_change import diagnose as diagnose
    from .evaluate_controller import EvaluateControllerConfig as EvaluateControllerConfig
    from .evaluate_controller import evaluate_policy as evaluate_policy
    from .evaluate_optimizer import evaluate as evaluate
    from .generate_weights import GenerateConfig as GenerateConfig
    from .generate_weights import generate as generate
    from .inspect_weights import InspectConfig as InspectConfig
    from .inspect_weights import inspect as inspect
    from .main_job import MainConfig as MainConfig
    from .main_job import main as main
    from .record_trajectories import record as record
    from .register_optimizer import RegisterConfig as RegisterConfig
    from .register_optimizer import register as register
    from .train_controller import train_policy as train_policy
    from .train_optimizer import train as train
    from .training_comparison import compare as compare
    from .training_comparison import compare_training as compare_training

_MODULES = {
    "CompareConfig": ".comparison.config",
    "DiagnoseConfig": "diagnose_change",
    "EvaluateConfig": ".evaluation.config",
    "EvaluateControllerConfig": "evaluate_controller",
    "ExportAdapterConfig": "adapter_files",
    "GenerateConfig": "generate_weights",
    "InspectConfig": "inspect_weights",
    "MainConfig": "main_job",
    "RegisterConfig": "register_optimizer",
    "TrainControllerConfig": ".reinforcement.config",
    "TrainOptimizerConfig": ".metatraining.config",
    "TrainTargetConfig": ".recording.config",
    "compare": "training_comparison",
    "compare_training": "training_comparison",
    "diagnose": "diagnose_change",
    "evaluate": "evaluate_optimizer",
    "evaluate_policy": "evaluate_controller",
    "export_adapter": "adapter_files",
    "generate": "generate_weights",
    "inspect": "inspect_weights",
    "main": "main_job",
    "record": "record_trajectories",
    "register": "register_optimizer",
    "train": "train_optimizer",
    "train_policy": "train_controller",
}

# The configurations that are not in a workflow's own module need no MLflow, which takes seconds to import.
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
