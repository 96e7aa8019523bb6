"""The connection to the MLflow store: clients, runs and experiments, with errors of metaopt."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from ..core.errors import TrackingError
from ..core.text import shown

_ACCESS_ERRORS = {
    "UNAUTHENTICATED": "a user name and password of the server; set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "permission for this; ask the owner on the server, or choose names of your own "
    "(MLFLOW_EXPERIMENT_NAME for runs, --model-name for models)",
}
"""What was expected and what to do, by error code of MLflow, for servers with users."""

MISSING = "RESOURCE_DOES_NOT_EXIST"
"""Error code of MLflow for a run, model or experiment that does not exist."""

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """Connect to the tracking store, which is created if it does not exist.

    Several processes that create one SQLite file at the same time break it: connect before starting workers.

    Args:
        tracking_uri: the store, used by this process from then on. None selects the current store, then
            MLFLOW_TRACKING_URI, then `mlflow.db` in the working directory with artifacts in `mlruns/`.
    Raises:
        TrackingError: the store does not respond.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per file hides metaopt's own
    uri = tracking_uri or mlflow.get_tracking_uri()
    remedy = "start the server, or set MLFLOW_TRACKING_URI to another store, such as sqlite:///mlflow.db"
    with translate_errors(f"the tracking store {uri} cannot be used", remedy):
        if tracking_uri:
            mlflow.set_tracking_uri(tracking_uri)
        client = MlflowClient(uri)
        with _few_retries():
            client.search_experiments(max_results=1)
    return client


@contextmanager
def _few_retries() -> Iterator[None]:
    """Limit retries to seconds: before the work begins, no results can be lost."""
    previous = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        yield
    finally:
        if previous is None:
            del os.environ[_RETRIES]


def silence_mlflow() -> None:
    """Turn off MLflow's log messages and hints in this process; its errors are still raised."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else two lines at the end of each run


@contextmanager
def translate_errors(failure: str, remedy: str) -> Iterator[None]:
    """Replace errors of MLflow by a `TrackingError` with the cause and a remedy.

    Args:
        failure: what failed, such as "cannot read run 'x'".
        remedy: what to do.
    Raises:
        TrackingError: MLflow raised an error, or its server does not respond or denies access.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).rstrip(".")
        default = f"the store to be reachable and the name to exist; {remedy}"
        expected = _ACCESS_ERRORS.get(getattr(error, "error_code", ""), default)
        raise TrackingError(f"{failure}: {reason}. Expected {expected}") from error


@contextmanager
def translate_store_errors(client: MlflowClient) -> Iterator[None]:
    """Replace errors of MLflow during a run by a `TrackingError`; other errors pass.

    Raises:
        TrackingError: the store raised an error or no longer responds.
    """
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"the tracking store {client.tracking_uri} failed: {str(error).rstrip('.')}. Expected it to respond until "
            "the run ends; check the store and run again: local files are kept"
        ) from error


def get_run(client: MlflowClient, run_id: str) -> Run:
    """Get a run by its ID, including deleted runs, whose files still exist.

    Raises:
        TrackingError: the store has no such run.
    """
    remedy = f"find the ID in `mlflow ui`; the current store is {client.tracking_uri} (set by MLFLOW_TRACKING_URI)"
    with translate_errors(f"cannot read run {shown(run_id)}", remedy):
        return client.get_run(run_id)


def default_experiment_name() -> str:
    """The name of the experiment of new runs: MLFLOW_EXPERIMENT_NAME, or "metaopt" if that is not set."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "metaopt"


def default_experiment(client: MlflowClient) -> str | None:
    """The ID of the experiment of new runs; None if it does not exist yet."""
    name = default_experiment_name()
    with translate_errors(f"cannot read the experiment {name!r}", "check the name and the store"):
        found = client.get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def experiment_id(client: MlflowClient, name: str) -> str:
    """Get the ID of an experiment (MLflow's term for a group of runs), which is created if missing.

    Raises:
        TrackingError: the experiment was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another process created it at the same time
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"experiment {shown(name)} is deleted; expected an active one. Restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another name"
        )
    return str(found.experiment_id)
