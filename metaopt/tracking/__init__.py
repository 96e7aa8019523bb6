"""Tracks runs, artifacts and registered models in MLflow. No other package imports MLflow."""

from ..trajectories.recording_file import UPLOAD_FOLDER as TRAJECTORY
from .artifacts import (
    CHECKPOINTS,
    ResumePoint,
    download_artifact,
    download_files,
    resolve_checkpoint,
)
from .attached import attach_files
from .connection import connect, import_stores, silence_mlflow
from .lineage import link_evaluation, link_trajectories, link_version, log_evaluation_metrics, run_link, version_link
from .model_registry import (
    CANDIDATE,
    CHAMPION,
    OLD_MODEL_NAME,
    add_evaluation,
    champion_version,
    is_registered,
    load_optimizer,
    promote,
    register_optimizer,
    registered_version,
)
from .names import check_alias, check_metric_names, check_model_name
from .policy_registry import load_policy, policy_file, register_policy
from .recordings import Recording, fetch_trajectories, find_recordings
from .runs import describe_refusal, start_run
from .tags import ERROR_TAG
from .tracker import MlflowTracker, RunReference
from .unsent import UNSENT, upload_unsent

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "CHECKPOINTS",
    "ERROR_TAG",
    "OLD_MODEL_NAME",
    "TRAJECTORY",
    "UNSENT",
    "MlflowTracker",
    "Recording",
    "ResumePoint",
    "RunReference",
    "add_evaluation",
    "attach_files",
    "champion_version",
    "check_alias",
    "check_metric_names",
    "check_model_name",
    "connect",
    "describe_refusal",
    "download_artifact",
    "download_files",
    "fetch_trajectories",
    "find_recordings",
    "import_stores",
    "is_registered",
    "link_evaluation",
    "link_trajectories",
    "link_version",
    "load_optimizer",
    "load_policy",
    "log_evaluation_metrics",
    "policy_file",
    "promote",
    "register_optimizer",
    "register_policy",
    "registered_version",
    "resolve_checkpoint",
    "run_link",
    "silence_mlflow",
    "start_run",
    "upload_unsent",
    "version_link",
]
