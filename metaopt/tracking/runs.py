"""A training's run in MLflow: parameters, metrics, files and figures, and an end that says how it ended."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from ..core.config import Config
from ..figures import rendered
from .connection import answering, connect, experiment_id, get_run, refusals
from .descriptions import Note, describe_experiment, is_random
from .ending import status_after, terminable
from .manifests import MANIFEST, describe, to_json
from .metrics import MetricBuffer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_TAG = "metaopt.error"
"""Tag with the error that ended a failed run."""

_LONGEST_TAG = 5000  # [characters], what every store takes
_LONGEST_DIGEST = 36  # [characters], likewise
_LONGEST_CONTEXT = 500  # [characters], likewise
_PARAMS_PER_WRITE = 100  # [count], likewise
_INHERITED = (MLFLOW_USER, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_GIT_COMMIT)  # by runs below a run

log = logging.getLogger(__name__)


class RunReference(NamedTuple):
    """Where a run can be looked at."""

    run_id: str
    tracking_uri: str

    def __str__(self) -> str:
        where = f"on {self.tracking_uri}" if self.tracking_uri.startswith("http") else "(shown by `mlflow ui`)"
        return f"{self.run_id} {where}"


class MlflowTracker:
    """The `Tracker` that writes to MLflow. It names its run in every call: no other active run can get in between."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._metrics = MetricBuffer(client, run_id)
        self._note = Note()

    @property
    def reference(self) -> RunReference:
        """The run's ID and its store."""
        return RunReference(self.run_id, self.client.tracking_uri)

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

    def note(self, *, does: str | None = None, result: str | None = None, see: str | None = None) -> None:
        """Describe the run to people: what it does, what came of it, what belongs to it; a line of Markdown each.

        A line that is not given stays as it is; what belongs to the run is added to what was said before. How the run
        ends is added where it does not end well.
        """
        self._note.change(does, result, see)
        self.tags({MLFLOW_RUN_NOTE: self._note.markdown()})

    def ended(self, status: str, reason: str | None) -> None:
        """Tell how the run ended: FINISHED, KILLED or FAILED, and then the error."""
        self._note.end(status, reason)
        note = self._note.markdown()
        self.tags(({MLFLOW_RUN_NOTE: note} if note else {}) | ({ERROR_TAG: reason} if reason else {}))

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
        used = InputTag(MLFLOW_DATASET_CONTEXT, context[:_LONGEST_CONTEXT])
        inputs = [DatasetInput(data, [used])]
        try:
            self.client.log_inputs(self.run_id, inputs)
        except MlflowException:  # another process recorded the same data just then: now there is something to find
            self.client.log_inputs(self.run_id, inputs)

    def text(self, text: str, name: str) -> None:
        """Store a text file (`config.json`, `report.md`) with the run."""
        self.client.log_text(self.run_id, text, name)

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure, as `<name>.png` and `<name>.svg`, with the run."""
        folder, _, stem = name.rpartition("/")
        with tempfile.TemporaryDirectory() as place:
            for ending, content in rendered(figure).items():
                path = Path(place, f"{stem}.{ending}")
                path.write_bytes(content)
                self.client.log_artifact(self.run_id, str(path), folder or None)

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
        inherited = {tag: parent.data.tags[tag] for tag in _INHERITED if tag in parent.data.tags}
        tags = {**inherited, MLFLOW_PARENT_RUN_ID: self.run_id}
        run = self.client.create_run(parent.info.experiment_id, tags=tags, run_name=name)
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

    Under `mlflow run` the launcher has made the run and told its ID in MLFLOW_RUN_ID; that one is used. An experiment
    without a description gets one.

    Args:
        name: what the run is called, unless its launcher was told a name.
        config: logged as parameters and, with its types, as `config.json`.
        experiment: MLflow's group of runs; None for MLFLOW_EXPERIMENT_NAME, or "metaopt" where that is not set.
        tracking_uri: where runs are kept; None as for `connect`.
        description: what the run does, in a line of Markdown; the result follows it when the run ends.
        parent: ID of the run to appear below, for a training in a process of its own.
    Raises:
        TrackingError: the store does not answer, now or later; the run of MLFLOW_RUN_ID or the experiment cannot be
            used.
    """
    with terminable():
        client = connect(tracking_uri)
        run = _adopt(client, name) if os.environ.get("MLFLOW_RUN_ID") else _begin(client, name, experiment, parent)
        tracker = MlflowTracker(client, run.info.run_id)
        with answering(client), _ended(tracker, active=True):
            describe_experiment(client, run.info.experiment_id)
            if description:
                tracker.note(does=description)
            tracker.tags(tags or {})
            tracker.params(config.to_mapping())
            tracker.text(config.to_json(), "config.json")
            yield tracker


def _adopt(client: MlflowClient, name: str) -> Run:
    run_id = os.environ["MLFLOW_RUN_ID"]
    with refusals(f"cannot go on with run {run_id}, which MLFLOW_RUN_ID names", "unset it, or use `mlflow run`"):
        run = mlflow.start_run()  # takes the variable away: processes started from here begin runs of their own
        if is_random(run.info.run_name):
            client.update_run(run_id, name=name)
        return run


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
        except Exception as failure:
            log.warning("could not record how run %s ended: %s", tracker.run_id, failure)
        raise
    _end(tracker, None, active)


def _end(tracker: MlflowTracker, error: BaseException | None, active: bool) -> None:
    status = status_after(error)
    if active:
        mlflow.end_run(status)
    else:
        tracker.client.set_terminated(tracker.run_id, status)
    tracker.ended(status, f"{type(error).__name__}: {error}" if status == "FAILED" else None)


def _param_text(value: Any) -> str:
    """A parameter as a user would type it: `none`, `true`, `0.001`, `{"hidden": 64}`."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
