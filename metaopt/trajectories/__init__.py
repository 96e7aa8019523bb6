"""Trajectories: the snapshots of one training run on disk, oldest first, and the data set that they make."""

from .copies import SNAPSHOT_DTYPES
from .dataset import WeightPair, WeightTrajectoryDataset, split_by_run
from .recorder import Recorder
from .run_folder import check_run_name, claimed
from .trajectory import TASK_FILE, Segment, Snapshot, Trajectory, find_trajectories

__all__ = [
    "SNAPSHOT_DTYPES",
    "TASK_FILE",
    "Recorder",
    "Segment",
    "Snapshot",
    "Trajectory",
    "WeightPair",
    "WeightTrajectoryDataset",
    "check_run_name",
    "claimed",
    "find_trajectories",
    "split_by_run",
]
