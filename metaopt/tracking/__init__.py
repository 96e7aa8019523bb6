"""Tracks runs, artifacts and registered models in MLflow. No other package imports MLflow."""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names
from ..trajectories.recording_file import UPLOAD_FOLDER as TRAJECTORY

if TYPE_CHECKING:
    from .artifacts import CHECKPOINTS as CHECKPOINTS
    from .artifacts import ResumePoint as ResumePoint
    from .artifacts import download_artifact as download_artifact
    from .artifacts import download_files as download_files
    from .artifacts import resolve_checkpoint as resolve_checkpoint
    from .attached import attach_files as attach_files
    from .connection import connect as connect
    from .connection import silence_mlflow as silence_mlflow
    from .lineage import link_evaluation as link_evaluation
    from .lineage import link_trajectories as link_trajectories
    from .lineage import link_version as link_version
    from .lineage import log_evaluation_metrics as log_evaluation_metrics
    from .lineage import run_link as run_link
    from .lineage import version_link as version_link
    from .model_registry import CANDIDATE as CANDIDATE
    from .model_registry import CHAMPION as CHAMPION
    from .model_registry import OLD_MODEL_NAME as OLD_MODEL_NAME
    from .model_registry import add_evaluation as add_evaluation
    from .model_registry import champion_version as champion_version
    from .model_registry import is_registered as is_registered
    from .model_registry import load_optimizer as load_optimizer
    from .model_registry import promote as promote
    from .model_registry import register_optimizer as register_optimizer
    from .model_registry import registered_version as registered_version
    from .names import check_alias as check_alias
    from .names import check_metric_names as check_metric_names
    from .names import check_model_name as check_model_name
    from .policy_registry import load_policy as load_policy
    from .policy_registry import policy_file as policy_file
    from .policy_registry import register_policy as register_policy
    from .recordings import Recording as Recording
    from .recordings import fetch_trajectories as fetch_trajectories
    from .recordings import find_recordings as find_recordings
    from .runs import describe_refusal as describe_refusal
    from .runs import start_run as start_run
    from .tags import ERROR_TAG as ERROR_TAG
    from .tracker import MlflowTracker as MlflowTracker
    from .tracker import RunReference as RunReference
    from .unsent import UNSENT as UNSENT
    from .unsent import upload_unsent as upload_unsent

_MODULES = {
    "CANDIDATE": "model_registry",
    "CHAMPION": "model_registry",
    "CHECKPOINTS": "artifacts",
    "ERROR_TAG": "tags",
    "MlflowTracker": "tracker",
    "OLD_MODEL_NAME": "model_registry",
    "Recording": "recordings",
    "ResumePoint": "artifacts",
    "RunReference": "tracker",
    "UNSENT": "unsent",
    "add_evaluation": "model_registry",
    "attach_files": "attached",
    "champion_version": "model_registry",
    "check_alias": "names",
    "check_metric_names": "names",
    "check_model_name": "names",
    "connect": "connection",
    "describe_refusal": "runs",
    "download_artifact": "artifacts",
    "download_files": "artifacts",
    "fetch_trajectories": "recordings",
    "find_recordings": "recordings",
    "is_registered": "model_registry",
    "link_evaluation": "lineage",
    "link_trajectories": "lineage",
    "link_version": "lineage",
    "load_optimizer": "model_registry",
    "load_policy": "policy_registry",
    "log_evaluation_metrics": "lineage",
    "policy_file": "policy_registry",
    "promote": "model_registry",
    "register_optimizer": "model_registry",
    "register_policy": "policy_registry",
    "registered_version": "model_registry",
    "resolve_checkpoint": "artifacts",
    "run_link": "lineage",
    "silence_mlflow": "connection",
    "start_run": "runs",
    "upload_unsent": "unsent",
    "version_link": "lineage",
}

__all__ = ["TRAJECTORY", *_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)  # MLflow takes seconds to import, and some modules import torch
