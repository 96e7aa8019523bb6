"""What the data sources of meta-training share: their interface, and the recorded trajectories that they read."""

from collections.abc import Mapping
from typing import Any, Protocol

from ..core.progress import Progress
from ..core.tracker import Tracker
from ..trajectories import Trajectory, find_trajectories
from ..trajectories.origin import Parent
from ..weights.layout import Layout
from .config import TrainOptimizerConfig
from .curriculum import Curriculum
from .state import MetaTrainingState


def recorded_trajectories(config: TrainOptimizerConfig) -> list[Trajectory]:
    """The trajectories of all run names of a configuration.

    Raises:
        TrajectoryError: a run name has none.
    """
    folders = [config.trajectory_dir / name for name in config.run_names]
    return [trajectory for folder in folders for trajectory in find_trajectories(folder)]


class MetaTrainingSource(Protocol):
    """Trains and validates a generative optimizer, one epoch at a time.

    An epoch depends on its number and the configuration only. So a resumed meta-training equals an uninterrupted one.
    """

    training_names: list[str]
    """Names of the trajectories, or of the components of a mixture, that train the optimizer."""
    held_out_names: list[str]
    """Names of the trajectories that only validate it."""
    problem_names: list[str]
    """Target and task of each inner problem, without duplicates ("MLP on digits")."""
    layouts: list[Layout]
    """Layouts of the target networks, without duplicates."""
    stride: float
    """Steps between the snapshots of a history [steps]."""
    settings: dict[str, Any]
    """Values that must be equal when a meta-training is resumed."""

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The trajectories, or the data sets of a mixture, from which the optimizer is made."""

    def log_data(self, tracker: Tracker) -> None:
        """Record with a tracker which data the source reads."""

    def check_curriculum(self, curriculum: Curriculum) -> None:
        """Check that each stage has data and that its metric is measured.

        Raises:
            InvalidConfig: names the stage or the metric.
        """

    def updates(self, epoch: int) -> int:
        """Approximate number of updates in an epoch [count]."""

    def prepare(self, state: MetaTrainingState) -> None:
        """Do slow work before the first update, with a progress bar of its own."""

    def train(self, state: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Train for the epoch `state.epoch`, or for what is left of it; returns training metrics.

        Raises:
            StopRequested: the process was asked to stop, and the state can be saved. A source may ignore the request
                until the end of the epoch.
        """

    def validate(self, state: MetaTrainingState) -> dict[str, float]:
        """Validation metrics of the averaged weights, on held-out data."""

    def result(self, curriculum: Curriculum, metrics: Mapping[str, float]) -> float | None:
        """The validation result that decides about the stage of a curriculum; None if it was not measured.

        Args:
            metrics: those of `validate`.
        """
