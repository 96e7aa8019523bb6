"""`metaopt train-target`: phase 1."""

from collections.abc import Sequence
from pathlib import Path

from ..tracking import start_run
from ..training.target import TrainTargetConfig, train_targets
from ..training.wording import recorded_many
from ..trajectories import Trajectory
from .options import config_command
from .results import Result, unmarked, where


@config_command(TrainTargetConfig, "train-target")
def command(config: TrainTargetConfig) -> Result:
    """Train targets and record their weight trajectories (phase 1)."""
    with start_run(f"record {config.run_name}: {config.title}", config) as tracker:
        folders = train_targets(config, tracker)
    losses = _last_losses(folders)
    moved = ["--trajectory-dir", str(config.trajectory_dir)] if config.trajectory_dir != Path("trajectories") else []
    return Result(
        {"run_id": tracker.run_id, "trajectories": folders, "val_loss": losses},
        {**_lines(folders, losses), "run": where(tracker)},
        [["metaopt", "train-optimizer", "--run-name", config.run_name, *moved]],
    )


def _lines(folders: Sequence[Path], losses: Sequence[float]) -> dict[str, str]:
    one = len(folders) == 1
    recorded = {"recorded": str(folders[0]) if one else f"{len(folders)} trajectories in {folders[0].parent}"}
    if not losses:
        return recorded
    return {**recorded, "result": f"validation loss {losses[0]:.4g}" if one else unmarked(recorded_many(losses))}


def _last_losses(folders: Sequence[Path]) -> list[float]:
    """The last validation loss of each trajectory that has one."""
    ends = [Trajectory.open(folder).losses(-1) for folder in folders]
    return [losses["val_loss"] for losses in ends if "val_loss" in losses]
