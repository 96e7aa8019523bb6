"""The tracking store: found, created once, and its refusals turned into our errors."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from ..core.errors import TrackingError

_REFUSED = {
    "UNAUTHENTICATED": "a name and password that the server knows; set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD to yours",
    "PERMISSION_DENIED": "the right to do this; ask whoever owns it there, or choose names of your own "
    "(MLFLOW_EXPERIMENT_NAME for runs, --model-name for models)",
}
"""What was expected and what to do, by MLflow's code for an error, where a server wants to know who asks."""


_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking store, which is created where it does not exist yet.

    Several processes that create one SQLite file at the same time break it, so whoever starts workers connects first.

    Args:
        tracking_uri: the store; from here on this process uses it. None means the one that is in use, then
            MLFLOW_TRACKING_URI, then `mlflow.db` in the working directory with artifacts in `mlruns/`.
    Raises:
        TrackingError: nothing answers there.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per file drowns our own
    uri = tracking_uri or mlflow.get_tracking_uri()
    way_out = "start the server, or set MLFLOW_TRACKING_URI to another store, such as sqlite:///mlflow.db"
    with refusals(f"the tracking store {uri} cannot be used", way_out):
        if tracking_uri:
            mlflow.set_tracking_uri(tracking_uri)
        client = MlflowClient(uri)
        with _few_retries():
            client.search_experiments(max_results=1)
    return client


@contextmanager
def _few_retries() -> Iterator[None]:
    """Ask for seconds, not for minutes, whether a server is there: before the work begins, there is nothing to save."""
    given = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_RETRIES]


def quieten() -> None:
    """Keep MLflow's notes and hints off this process's terminal; what it refuses still arrives as an error."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else two lines per run that ends


@contextmanager
def refusals(what: str, way_out: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one error that says what failed, why, and what to do.

    Raises:
        TrackingError: MLflow refused, or its server does not answer, or not to this user.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).rstrip(".")
        expected = _REFUSED.get(getattr(error, "error_code", ""), f"it to be there and readable; {way_out}")
        raise TrackingError(f"{what}: {reason}. Expected {expected}") from error


@contextmanager
def answering(client: MlflowClient) -> Iterator[None]:
    """Turn what MLflow raises while a run goes on into an error of ours; other errors pass.

    Raises:
        TrackingError: the store refused, or does not answer any more.
    """
    try:
        yield
    except MlflowException as error:
        raise TrackingError(
            f"the tracking store {client.tracking_uri} failed: {str(error).rstrip('.')}. Expected it to answer until "
            "the run ends; what is in local folders is kept"
        ) from error


def get_run(client: MlflowClient, run_id: str) -> Run:
    """A run by its ID; deleted ones too, because their files are still there.

    Raises:
        TrackingError: the store has no such run.
    """
    way_out = (
        f"look the ID up in `mlflow ui`; the store in use is {client.tracking_uri} (MLFLOW_TRACKING_URI chooses it)"
    )
    with refusals(f"cannot read run {run_id!r}", way_out):
        return client.get_run(run_id)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The ID of an experiment (MLflow's word for a group of runs), made where missing.

    Raises:
        TrackingError: it is in the store's bin.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"experiment {name!r} is deleted; expected one that takes runs. Restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another name"
        )
    return str(found.experiment_id)
