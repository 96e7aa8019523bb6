"""Phase 1: trains targets and records their weight trajectories in an MLflow run."""

from dataclasses import dataclass
from pathlib import Path

from ..recording.config import TrainTargetConfig
from ..recording.record import prepared_recording
from ..recording.twins import train_twins
from ..tracking import RunReference, start_run
from ..trajectories import Trajectory


@dataclass(frozen=True)
class RecordedTrajectories:
    """Result of phase 1.

    Attributes:
        run: the MLflow run; if there are several trajectories, the parent of their runs.
        folders: folder of each trajectory, in the order of the random seeds.
        validation_losses: validation loss at the last snapshot of each trajectory that measured one.
        twins: mean ratios of the losses to those of the twins, see `train_twins`.
    """

    run: RunReference
    folders: list[Path]
    validation_losses: list[float]
    twins: dict[str, float]


def record(config: TrainTargetConfig) -> RecordedTrajectories:
    """Train targets and record a weight trajectory of each.

        from metaopt import workflows

        config = workflows.TrainTargetConfig(run_name="mlp", target_model="MLP", runs=2, epochs=2)
        recorded = workflows.record(config)
        print(recorded.folders, recorded.validation_losses)

    Raises:
        MetaoptError: as for `train_targets`; or the tracking store cannot be used.
    """
    name = f"record {config.run_name}: {config.title}"
    with prepared_recording(config) as recording, start_run(name, config, folder=recording.folder) as tracker:
        folders = recording.run(tracker)
        twins = train_twins(config, folders, tracker) if config.twins else {}
        if twins:
            tracker.metrics(twins, step=max(Trajectory.open(folder).steps[-1] for folder in folders))
    last = [Trajectory.open(folder).losses(-1) for folder in folders]
    losses = [losses["val_loss"] for losses in last if "val_loss" in losses]
    return RecordedTrajectories(tracker.reference, folders, losses, twins)
