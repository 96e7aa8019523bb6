"""Trajectories: recording and reading the snapshots of training runs, and the dataset of snapshot pairs."""

from .dataset import WeightPair, WeightTrajectoryDataset, split_by_run
from .reader import Segment, Snapshot
from .recorder import SNAPSHOT_DTYPES, Recorder
from .run_folder import check_run_name, claim_run_folder
from .task_file import TASK_FILE, write_task
from .trajectory import Trajectory, find_trajectories
from .whole_network import read_whole_network

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
    "claim_run_folder",
    "find_trajectories",
    "read_whole_network",
    "split_by_run",
    "write_task",
]
