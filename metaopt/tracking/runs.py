"""Starts and ends the MLflow run of a command."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Protocol

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

from ..core.config import Config
from ..core.config_digest import config_digest
from ..core.control import control
from ..core.errors import TrackingError
from ..core.signals import terminable
from ..core.text import shown
from .connection import connect, experiment_id, get_run
from .descriptions import describe_experiment
from .outbox import Outbox
from .run_list import save_view
from .stale_runs import close_stale_runs, process_tags
from .store_errors import translate_errors, translate_store_errors, without_password
from .tags import CONFIG_DIGEST_TAG, ERROR_TAG, JOB_TAG, LONGEST_TAG, NAME_TAG
from .tracker import MlflowTracker, ending

_UNFINISHED = ("RUNNING", "SCHEDULED")


class Replacing(Protocol):
    """Files of a run that replaces earlier ones."""

    def clear(self) -> None:
        """Remove what the run replaces."""


@contextmanager
def start_run(
    name: str,
    config: Config,
    *,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    parent: str | None = None,
    folder: Replacing | None = None,
) -> Iterator[MlflowTracker]:
    """Start an MLflow run. It ends when the block exits, with status FINISHED, FAILED or KILLED.

    If the environment variable MLFLOW_RUN_ID is set, for example by `mlflow run`, that run is resumed. It keeps its
    name, and its tag `metaopt.name` is set to `name`. If the experiment has no description, metaopt sets one. Runs of
    the experiment whose process is gone are closed as KILLED.

        from metaopt.core.config import Config, option
        from metaopt.tracking import start_run

        class SearchConfig(Config):
            trials: int = option(default=3, help="Number of trials.")

        with start_run("search", SearchConfig(), description="Searches the learning rate.") as tracker:
            tracker.metrics({"val_loss": 0.3}, step=100)
            tracker.describe(result="0.3 at learning rate 1e-3")

    Args:
        name: name of the run in the MLflow UI.
        config: configuration, logged as parameters and, with the types of its values, as the artifact `config.json`.
        experiment: name of the MLflow experiment; by default that of `mlflow.set_experiment`, of
            MLFLOW_EXPERIMENT_NAME or of MLFLOW_EXPERIMENT_ID, or "metaopt" if none is set.
        tracking_uri: tracking store; the default of `connect` if None.
        tags: tags of the run.
        description: purpose of the run, in one line of Markdown.
        parent: ID of the parent run, for a child run in a separate process.
        folder: its files, such as a `ClaimedFolder`. What the run replaces there is removed once the store has
            accepted the run, and before a queue notes the run: a killed job resumes what its noted runs have written.
    Raises:
        TrackingError: the store does not respond or cannot be written at the start, or the experiment or the run of
            MLFLOW_RUN_ID cannot be used. A store that fails later does not end the run.
        StorageError: what the run replaces cannot be removed.
    """
    with terminable():
        client = connect(tracking_uri)

        def create() -> MlflowTracker:
            run_exists = bool(os.environ.get("MLFLOW_RUN_ID"))
            run = _resume_run(client, name) if run_exists else _create_run(client, name, experiment, parent)
            outbox = Outbox(client.tracking_uri, run.info.run_id, run.info.experiment_id)
            return MlflowTracker(outbox, run.info.run_id, is_last=True)

        with translate_store_errors(client), ending(create) as tracker:
            _begin(tracker, config, tags or {}, description)
            if folder is not None:
                folder.clear()
            control.run_started(tracker.run_id)
            yield tracker


def describe_refusal(error: Exception) -> None:
    """Describe why a command was refused in the run that `mlflow run` started for it, if it is not resumed yet."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is None:
        return
    with suppress(TrackingError), translate_errors("cannot describe the run", "check the store"):
        client = connect()
        if client.get_run(run_id).info.status in _UNFINISHED:
            reason = without_password(f"{type(error).__name__}: {error}")
            client.set_tag(run_id, ERROR_TAG, reason[:LONGEST_TAG])


def _begin(tracker: MlflowTracker, config: Config, tags: Mapping[str, Any], description: str | None) -> None:
    """Describe a run that has just been created."""
    experiment = tracker.experiment_id
    with translate_errors(f"cannot describe experiment {experiment}", "check that the tracking store can be written"):
        describe_experiment(tracker.client, experiment)
        save_view(tracker.client, experiment)
    close_stale_runs(tracker.client, experiment, tracker.run_id)
    if description:
        tracker.describe(purpose=description)
    job = {JOB_TAG: control.job} if control.job else {}
    tracker.tags({CONFIG_DIGEST_TAG: config_digest(config), **tags, **job})
    tracker.params(config.to_mapping())
    tracker.text(config.to_json(), "config.json")
    tracker.check()


def _resume_run(client: MlflowClient, name: str) -> Run:
    """Resume the run of MLFLOW_RUN_ID. It keeps its name, because a user may have chosen it."""
    run_id = os.environ["MLFLOW_RUN_ID"]
    with translate_errors(f"cannot resume run {run_id} (MLFLOW_RUN_ID)", "unset MLFLOW_RUN_ID, or use `mlflow run`"):
        info = client.get_run(run_id).info
        if info.status not in _UNFINISHED or info.lifecycle_stage == LifecycleStage.DELETED:
            status = "deleted" if info.lifecycle_stage == LifecycleStage.DELETED else info.status
            raise TrackingError(
                f"run {run_id} (MLFLOW_RUN_ID) is {status}; expected a run that is {' or '.join(_UNFINISHED)}, because "
                "its results would be overwritten. Unset MLFLOW_RUN_ID to start a new run"
            )
        run = mlflow.start_run(tags=process_tags())  # unsets MLFLOW_RUN_ID, so child processes do not resume this run
        client.set_tag(run_id, NAME_TAG, name)
        return run


def _create_run(client: MlflowClient, name: str, experiment: str | None, parent: str | None) -> Run:
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() and find_spec("psutil") is None:  # MLflow would notice too late
        raise TrackingError("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING needs psutil; install it or unset the variable")
    with translate_errors(f"cannot start run {shown(name)}", "check that the tracking store exists and can be written"):
        found = get_run(client, parent).info.experiment_id if parent else experiment_id(client, experiment)
        return mlflow.start_run(
            run_name=name, experiment_id=found, nested=True, parent_run_id=parent, tags=process_tags()
        )
