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
from .lineage import gave_version, judged_version, judges_version, learned_from, run_link, version_link
from .model_registry import (
    CHAMPION,
    MODEL_NAME,
    add_judgement,
    champion_version,
    is_registered,
    load_optimizer,
    promote,
    register_optimizer,
    registered_version,
)
from .runs import ERROR_TAG, MlflowTracker, RunReference, start_run

__all__ = [
    "CHAMPION",
    "CHECKPOINTS",
    "ERROR_TAG",
    "MODEL_NAME",
    "TRAJECTORY",
    "MlflowTracker",
    "ResumePoint",
    "RunReference",
    "TrajectoryRun",
    "add_judgement",
    "champion_version",
    "connect",
    "download_files",
    "fetch_trajectories",
    "find_trajectory_runs",
    "gave_version",
    "is_registered",
    "judged_version",
    "judges_version",
    "learned_from",
    "load_optimizer",
    "promote",
    "quieten",
    "register_optimizer",
    "registered_version",
    "resolve_checkpoint",
    "run_link",
    "start_run",
    "version_link",
]
