"""Phase 1: train targets and record their weight trajectories, in an MLflow run."""

from dataclasses import dataclass
from pathlib import Path

from ..recording.config import TrainTargetConfig
from ..recording.record import train_targets
from ..tracking import RunReference, start_run
from ..trajectories import Trajectory


@dataclass(frozen=True)
class RecordedTrajectories:
    """What phase 1 recorded.

    Attributes:
        run: the MLflow run; with several trajectories the parent of theirs.
        folders: one per trajectory, in the order of the random seeds.
        validation_losses: the last one of each trajectory that has one.
    """

    run: RunReference
    folders: list[Path]
    validation_losses: list[float]


def record(config: TrainTargetConfig) -> RecordedTrajectories:
    """Train `config.runs` targets and record a trajectory of each.

    Raises:
        MetaoptError: as for `train_targets`; or the tracking store does not answer.
    """
    with start_run(f"record {config.run_name}: {config.title}", config) as tracker:
        folders = train_targets(config, tracker)
    last = [Trajectory.open(folder).losses(-1) for folder in folders]
    losses = [losses["val_loss"] for losses in last if "val_loss" in losses]
    return RecordedTrajectories(tracker.reference, folders, losses)
