"""Tracks runs, artifacts and registered models in MLflow. No other package imports MLflow.

The names below import their modules at first use, so that commands that only look at a store do not import torch.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names
from ..trajectories.recording_file import UPLOAD_FOLDER as TRAJECTORY

if TYPE_CHECKING:
    from .artifacts import CHECKPOINTS as CHECKPOINTS
    from .artifacts import ResumePoint as ResumePoint
    from .artifacts import download_artifact as download_artifact
    from .artifacts import download_files as download_files
    from .artifacts import has_checkpoint as has_checkpoint
    from .artifacts import resolve_checkpoint as resolve_checkpoint
    from .attached import attach_files as attach_files
    from .connection import connect as connect
    from .connection import import_stores as import_stores
    from .connection import silence_mlflow as silence_mlflow
    from .lineage import link_evaluation as link_evaluation
    from .lineage import link_trajectories as link_trajectories
    from .lineage import link_version as link_version
    from .lineage import log_evaluation_metrics as log_evaluation_metrics
    from .lineage import run_link as run_link
    from .lineage import version_link as version_link
    from .model_registry import CANDIDATE as CANDIDATE
    from .model_registry import add_evaluation as add_evaluation
    from .model_registry import load_optimizer as load_optimizer
    from .model_registry import optimizer_file as optimizer_file
    from .model_registry import promote as promote
    from .model_registry import register_optimizer as register_optimizer
    from .names import check_alias as check_alias
    from .names import check_metric_names as check_metric_names
    from .names import check_model_name as check_model_name
    from .origins import checkpoint_entries as checkpoint_entries
    from .origins import origin_tag as origin_tag
    from .origins import registered_checkpoints as registered_checkpoints
    from .origins import registered_parent as registered_parent
    from .origins import run_phase as run_phase
    from .origins import trajectory_origin as trajectory_origin
    from .origins import version_origin as version_origin
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
    from .unsent import unsent_files as unsent_files
    from .unsent import upload_unsent as upload_unsent
    from .versions import CHAMPION as CHAMPION
    from .versions import OLD_MODEL_NAME as OLD_MODEL_NAME
    from .versions import champion_version as champion_version
    from .versions import is_registered as is_registered
    from .versions import registered_version as registered_version

_MODULES = {
    "CANDIDATE": "model_registry",
    "CHAMPION": "versions",
    "CHECKPOINTS": "artifacts",
    "ERROR_TAG": "tags",
    "MlflowTracker": "tracker",
    "OLD_MODEL_NAME": "versions",
    "Recording": "recordings",
    "ResumePoint": "artifacts",
    "RunReference": "tracker",
    "UNSENT": "unsent",
    "add_evaluation": "model_registry",
    "attach_files": "attached",
    "champion_version": "versions",
    "check_alias": "names",
    "check_metric_names": "names",
    "check_model_name": "names",
    "checkpoint_entries": "origins",
    "connect": "connection",
    "describe_refusal": "runs",
    "download_artifact": "artifacts",
    "download_files": "artifacts",
    "fetch_trajectories": "recordings",
    "find_recordings": "recordings",
    "has_checkpoint": "artifacts",
    "import_stores": "connection",
    "is_registered": "versions",
    "link_evaluation": "lineage",
    "link_trajectories": "lineage",
    "link_version": "lineage",
    "load_optimizer": "model_registry",
    "load_policy": "policy_registry",
    "log_evaluation_metrics": "lineage",
    "optimizer_file": "model_registry",
    "origin_tag": "origins",
    "policy_file": "policy_registry",
    "promote": "model_registry",
    "register_optimizer": "model_registry",
    "register_policy": "policy_registry",
    "registered_checkpoints": "origins",
    "registered_parent": "origins",
    "registered_version": "versions",
    "resolve_checkpoint": "artifacts",
    "run_link": "lineage",
    "run_phase": "origins",
    "silence_mlflow": "connection",
    "start_run": "runs",
    "trajectory_origin": "origins",
    "unsent_files": "unsent",
    "upload_unsent": "unsent",
    "version_link": "lineage",
    "version_origin": "origins",
}

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
    "checkpoint_entries",
    "connect",
    "describe_refusal",
    "download_artifact",
    "download_files",
    "fetch_trajectories",
    "find_recordings",
    "has_checkpoint",
    "import_stores",
    "is_registered",
    "link_evaluation",
    "link_trajectories",
    "link_version",
    "load_optimizer",
    "load_policy",
    "log_evaluation_metrics",
    "optimizer_file",
    "origin_tag",
    "policy_file",
    "promote",
    "register_optimizer",
    "register_policy",
    "registered_checkpoints",
    "registered_parent",
    "registered_version",
    "resolve_checkpoint",
    "run_link",
    "run_phase",
    "silence_mlflow",
    "start_run",
    "trajectory_origin",
    "unsent_files",
    "upload_unsent",
    "version_link",
    "version_origin",
]
__getattr__ = lazy_names(__name__, _MODULES)
