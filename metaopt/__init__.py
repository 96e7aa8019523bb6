"""Learn optimizers from the weight trajectories of networks.

Phase 1 trains target networks and records their weight trajectories. Phase 2 trains a generative optimizer on them.
`Nowcast` uses a trained optimizer in any PyTorch training loop.

    import metaopt

    trajectory = metaopt.Trajectory.open("trajectories/digits/seed_0")
    optimizer = metaopt.load_optimizer("builtin")
    print(trajectory.steps, optimizer.history)
"""

from typing import TYPE_CHECKING

from .core.lazy import lazy_names
from .core.moved import install as _install_moved_modules
from .core.moved import moved_names

if TYPE_CHECKING:
    from .comparison.trial import Trial as Trial
    from .core.errors import MetaoptError as MetaoptError
    from .generative import GenerativeOptimizer as GenerativeOptimizer
    from .generative import PerceiverOptimizer as PerceiverOptimizer
    from .generative import get_optimizer_model as get_optimizer_model
    from .generative.files import load_optimizer as load_optimizer
    from .nowcast.guards.data_guard import guard_from as guard_from
    from .nowcast.optimizer import Nowcast as Nowcast
    from .nowcast.reestimation import reestimate_batchnorm as reestimate_batchnorm
    from .targets import TargetCNN as TargetCNN
    from .targets import get_target_model as get_target_model
    from .tasks import load_task as load_task
    from .trajectories import Trajectory as Trajectory
    from .trajectories import WeightTrajectoryDataset as WeightTrajectoryDataset
    from .weights.layout import Layout as Layout
    from .weights.model_files import load_model_weights as load_model_weights
    from .weights.model_files import save_model_weights as save_model_weights
    from .workflows.training_comparison import compare as compare

_MODULES = {
    "GenerativeOptimizer": "generative",
    "Layout": "weights.layout",
    "MetaoptError": "core.errors",
    "Nowcast": "nowcast.optimizer",
    "PerceiverOptimizer": "generative",
    "TargetCNN": "targets",
    "Trajectory": "trajectories",
    "Trial": "comparison.trial",
    "WeightTrajectoryDataset": "trajectories",
    "compare": "workflows.training_comparison",
    "get_optimizer_model": "generative",
    "get_target_model": "targets",
    "guard_from": "nowcast.guards.data_guard",
    "load_model_weights": "weights.model_files",
    "load_optimizer": "generative.files",
    "load_task": "tasks",
    "reestimate_batchnorm": "nowcast.reestimation",
    "save_model_weights": "weights.model_files",
}

__all__ = [*_MODULES]
__getattr__ = moved_names(__name__, {"get_task": "metaopt:load_task"}, otherwise=lazy_names(__name__, _MODULES))

_install_moved_modules()


def __dir__() -> list[str]:
    return __all__
