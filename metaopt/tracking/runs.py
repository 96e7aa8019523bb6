"""A training's run in MLflow: parameters, metrics, files and figures, and an end that says how it ended."""

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from ..configuration import Config
from ..training.termination import TERMINATED, terminate
from .connection import connect, experiment_id, get_run, refusals
from .manifests import MANIFEST, describe, to_json
from .metrics import MetricBuffer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_TAG = "metaopt.error"
"""Tag with the error that ended a failed run."""

_LONGEST_TAG = 5000  # [characters], what every store takes
_LONGEST_DIGEST = 36  # [characters], likewise
_PARAMS_PER_WRITE = 100  # [count], likewise

log = logging.getLogger(__name__)


class MlflowTracker:
    """The `Tracker` that writes to MLflow. It names its run in every call: no other active run can get in between."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._metrics = MetricBuffer(client, run_id)

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters; those that the run already has are left alone.

        `mlflow run` records the texts of the command line before the script starts; the typed values stand in
        `config.json`.
        """
        there = self.client.get_run(self.run_id).data.params
        missing = [Param(name, _param_text(value)) for name, value in values.items() if name not in there]
        for start in range(0, len(missing), _PARAMS_PER_WRITE):
            self.client.log_batch(self.run_id, params=missing[start : start + _PARAMS_PER_WRITE])

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record tags, replacing older values."""
        tags = [RunTag(name, str(value)[:_LONGEST_TAG]) for name, value in values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics at a step; written in batches."""
        self._metrics.add(values, step)

    def flush(self) -> None:
        """Write the metrics that wait."""
        self._metrics.flush()

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record data that the run reads: where it comes from and at most 36 characters that identify it."""
        kind = "http" if source.startswith(("http://", "https://")) else "local"
        address = json.dumps({"url" if kind == "http" else "uri": source})
        data = Dataset(name=name, digest=digest[:_LONGEST_DIGEST], source_type=kind, source=address)
        self.client.log_inputs(self.run_id, [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, context)])])

    def text(self, text: str, name: str) -> None:
        """Store a text file (`config.json`, `report.md`) with the run."""
        self.client.log_text(self.run_id, text, name)

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure, as `<name>.png`, with the run."""
        self.client.log_figure(self.run_id, figure, f"{name}.png")

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Store files in a folder of the run, then a manifest with their sha256: a folder without one is unfinished.

        Raises:
            TrackingError: two files have one name.
        """
        self.flush()
        entries = describe(paths)
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder)
        self.client.log_text(self.run_id, to_json(entries), f"{folder}/{MANIFEST}")

    @contextmanager
    def child(self, name: str) -> "Iterator[MlflowTracker]":
        """A run of its own below this one; it ends as its block does."""
        self.flush()
        parent = get_run(self.client, self.run_id)
        run = self.client.create_run(parent.info.experiment_id, tags={MLFLOW_PARENT_RUN_ID: self.run_id}, run_name=name)
        tracker = MlflowTracker(self.client, run.info.run_id)
        with _ended(tracker):
            yield tracker

    def elsewhere(self) -> "RemoteRun":
        """What another process needs to open runs below this one; it can be pickled."""
        self.flush()
        return RemoteRun(self.client.tracking_uri, self.run_id)


@dataclass(frozen=True)
class RemoteRun:
    """A run as seen from another process, or another machine where the tracking URI is a server's."""

    tracking_uri: str
    run_id: str

    @contextmanager
    def child(self, name: str) -> "Iterator[MlflowTracker]":
        """A run of its own below this one; it ends as its block does."""
        with MlflowTracker(connect(self.tracking_uri), self.run_id).child(name) as tracker:
            yield tracker


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
) -> Iterator[MlflowTracker]:
    """Track a training as an MLflow run, which ends as its block does: finished, failed with the error, or killed.

    Under `mlflow run` the launcher has made the run and named it in MLFLOW_RUN_ID; that one is used.

    Args:
        name: what the run is called.
        config: logged as parameters and, with its types, as `config.json`.
        experiment: MLflow's group of runs; None for MLFLOW_EXPERIMENT_NAME, or "metaopt" where that is not set.
        tracking_uri: where runs are kept; None as for `connect`.
        description: shown above the run, in Markdown.
        parent: ID of the run to appear below, for a training in a process of its own.
    Raises:
        TrackingError: the store does not answer, or the run of MLFLOW_RUN_ID or the experiment cannot be used.
    """
    with _terminable():
        client = connect(tracking_uri)
        run = _adopt(client) if os.environ.get("MLFLOW_RUN_ID") else _begin(client, name, experiment, parent)
        tracker = MlflowTracker(client, run.info.run_id)
        with _ended(tracker, active=True):
            note = {MLFLOW_RUN_NOTE: description} if description else {}
            tracker.tags({**note, **(tags or {})})
            tracker.params(config.to_mapping())
            tracker.text(config.to_json(), "config.json")
            yield tracker


def _adopt(client: MlflowClient) -> Run:
    run_id = os.environ["MLFLOW_RUN_ID"]
    with refusals(f"cannot go on with run {run_id}, which MLFLOW_RUN_ID names", "unset it, or use `mlflow run`"):
        return mlflow.start_run()  # takes the variable away: processes started from here begin runs of their own


def _begin(client: MlflowClient, name: str, experiment: str | None, parent: str | None) -> Run:
    experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "metaopt"
    with refusals(f"cannot start run {name!r}", "check the store"):
        group = get_run(client, parent).info.experiment_id if parent else experiment_id(client, experiment)
        return mlflow.start_run(run_name=name, experiment_id=group, nested=True, parent_run_id=parent)


@contextmanager
def _ended(tracker: MlflowTracker, *, active: bool = False) -> Iterator[None]:
    """End a run as its block ends. A failure to record the end never hides the error that ended it."""
    try:
        yield
        tracker.flush()
    except BaseException as error:
        try:
            _end(tracker, error, active)
            tracker.flush()
        except Exception:
            log.exception("could not record how run %s ended", tracker.run_id)
        raise
    _end(tracker, None, active)


def _end(tracker: MlflowTracker, error: BaseException | None, active: bool) -> None:
    status = _status_after(error)
    if active:
        mlflow.end_run(status)
    else:
        tracker.client.set_terminated(tracker.run_id, status)
    if status == "FAILED":
        tracker.tags({ERROR_TAG: f"{type(error).__name__}: {error}"})


def _status_after(error: BaseException | None) -> str:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == TERMINATED):
        return "KILLED"
    return "FAILED"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block like an error does, so that the run does not stay RUNNING for ever."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _param_text(value: Any) -> str:
    """A parameter as a user would type it: `none`, `true`, `0.001`, `{"hidden": 64}`."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
