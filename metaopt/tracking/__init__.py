"""Runs, artifacts and registered models in MLflow; the only room that imports it."""

from .artifacts import (
    CHECKPOINTS,
    TRAJECTORY,
    ResumePoint,
    TrajectoryRun,
    download_files,
    fetch_trajectories,
    find_trajectory_runs,
    resolve_checkpoint,
)
from .connection import connect, quieten
from .model_registry import (
    CHAMPION,
    MODEL_NAME,
    champion_version,
    load_optimizer,
    promote,
    register_optimizer,
    registered_version,
)
from .runs import ERROR_TAG, MlflowTracker, start_run

__all__ = [
    "CHAMPION",
    "CHECKPOINTS",
    "ERROR_TAG",
    "MODEL_NAME",
    "TRAJECTORY",
    "MlflowTracker",
    "ResumePoint",
    "TrajectoryRun",
    "champion_version",
    "connect",
    "download_files",
    "fetch_trajectories",
    "find_trajectory_runs",
    "load_optimizer",
    "promote",
    "quieten",
    "register_optimizer",
    "registered_version",
    "resolve_checkpoint",
    "start_run",
]
