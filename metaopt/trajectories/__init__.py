"""Trajectories: recording and reading the snapshots of training runs, and the dataset of snapshot pairs.

The names below import their modules at first use, so that commands that only look at files do not import torch.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from .dataset import WeightPair as WeightPair
    from .dataset import WeightTrajectoryDataset as WeightTrajectoryDataset
    from .dataset import split_by_run as split_by_run
    from .reader import Segment as Segment
    from .reader import Snapshot as Snapshot
    from .recorder import SNAPSHOT_DTYPES as SNAPSHOT_DTYPES
    from .recorder import Recorder as Recorder
    from .run_folder import check_run_name as check_run_name
    from .run_folder import claim_run_folder as claim_run_folder
    from .task_file import TASK_FILE as TASK_FILE
    from .task_file import write_task as write_task
    from .trajectory import Trajectory as Trajectory
    from .trajectory import find_trajectories as find_trajectories
    from .whole_network import read_whole_network as read_whole_network

_MODULES = {
    "Recorder": "recorder",
    "SNAPSHOT_DTYPES": "recorder",
    "Segment": "reader",
    "Snapshot": "reader",
    "TASK_FILE": "task_file",
    "Trajectory": "trajectory",
    "WeightPair": "dataset",
    "WeightTrajectoryDataset": "dataset",
    "check_run_name": "run_folder",
    "claim_run_folder": "run_folder",
    "find_trajectories": "trajectory",
    "read_whole_network": "whole_network",
    "split_by_run": "dataset",
    "write_task": "task_file",
}

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
__getattr__ = lazy_names(__name__, _MODULES)
