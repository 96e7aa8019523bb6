"""The `Tracker` of MLflow: writes to a run in the background, and starts and ends child runs."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking import fluent
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from ..core.signals import ended_by_signal, held
from ..figures import rendered
from .artifacts import is_complete
from .connection import get_run
from .descriptions import Description
from .manifests import manifest_of, to_json
from .names import metric_problem
from .operations import CreateRun, EndRun, LogDataset, LogMetrics, LogParams, SetTags, UploadFolder
from .outbox import Outbox, new_key, now_ms
from .run_list import run_page
from .stale_runs import process_tags
from .store_errors import MISSING, without_password
from .tags import DESCRIPTION_TAG, ERROR_TAG, LONGEST_TAG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Limits that every MLflow store accepts:
_MAX_DIGEST_LENGTH = 36  # [characters]
_MAX_CONTEXT_LENGTH = 500  # [characters]
_LOCAL_UI = "http://127.0.0.1:5000"

log = logging.getLogger(__name__)


class RunReference(NamedTuple):
    """The ID of a run, its tracking store and its experiment."""

    run_id: str
    tracking_uri: str
    experiment_id: str

    def __str__(self) -> str:
        """The ID and the address of the page of the run."""
        uri = without_password(self.tracking_uri).rstrip("/")
        host = uri if uri.startswith("http") else f"`mlflow ui`, {_LOCAL_UI}"
        return f"{self.run_id}, {host}{run_page(self.experiment_id, self.run_id)}"


class MlflowTracker:
    """A `Tracker` that logs to an MLflow run. MLflow's active run has no effect on it.

    Writes are sent in the background, in their order. If the store does not accept them, they wait and are repeated,
    and what is left at the end of the run is kept in a folder for `metaopt upload`.

    Args:
        outbox: sends the writes.
        run: key of the run in the outbox; the ID of a run that exists.
        is_last: whether the outbox has nothing to send after the end of this run.
    """

    def __init__(self, outbox: Outbox, run: str, *, is_last: bool = False) -> None:
        self._outbox = outbox
        self._run = run
        self._is_last = is_last
        self._refused: set[str] = set()
        self._description = Description()

    @property
    def run_id(self) -> str:
        """ID of the run; a temporary one while the store cannot create the run."""
        return self._outbox.run_ids.get(self._run, self._run)

    @property
    def client(self) -> MlflowClient:
        """A client of the store."""
        return self._outbox.client()

    @property
    def reference(self) -> RunReference:
        """The ID of the run, its tracking store and its experiment."""
        return RunReference(self.run_id, self._outbox.tracking_uri, self.experiment_id)

    @property
    def experiment_id(self) -> str:
        """The ID of the run's experiment."""
        return self._outbox.experiment_id or str(get_run(self.client, self.run_id).info.experiment_id)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, except those that the run already has.

        A run that was started by `mlflow run` already has the command-line arguments, logged as text. The artifact
        `config.json` has the values with their types.
        """
        self._outbox.record(LogParams(self._run, {name: _param_text(value) for name, value in values.items()}))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags. An existing value is replaced; a long value is truncated."""
        self._outbox.record(SetTags(self._run, {name: str(value)[:LONGEST_TAG] for name, value in values.items()}))

    def describe(self, *, purpose: str | None = None, result: str | None = None, links: str | None = None) -> None:
        """Update the description of the run in the MLflow UI. Each argument is one line of Markdown.

        Args:
            purpose: purpose of the run; replaces the previous purpose.
            result: result of the run; replaces the previous result. If the run fails, the error replaces the result.
            links: related runs, versions and files; appended to the previous links.
        """
        self._description.update(purpose, result, links)
        self.tags({DESCRIPTION_TAG: self._description.markdown()})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step. A name that MLflow refuses is left out, with one warning."""
        now = now_ms()
        points = [(name, float(value), now, int(step)) for name, value in values.items() if self._accepts(name)]
        if points:
            self._outbox.record(LogMetrics(self._run, points))

    def flush(self) -> None:
        """Wait until all is sent, for a moment at most."""
        self._outbox.flush()

    def check(self) -> None:
        """Wait until all is sent, before the work of a run begins.

        Raises:
            TrackingError: the store does not accept it.
        """
        self._outbox.check()

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Log a data set as an input of the run.

        Args:
            name: name of the data set.
            source: path or URL of the data.
            digest: digest of the contents; truncated to 36 characters.
            context: use of the data in the run, such as "training".
        """
        source_type = "http" if source.startswith(("http://", "https://")) else "local"
        address = json.dumps({"url" if source_type == "http" else "uri": without_password(source)})
        short, use = digest[:_MAX_DIGEST_LENGTH], context[:_MAX_CONTEXT_LENGTH]
        self._outbox.record(LogDataset(self._run, name, short, source_type, address, use))

    def text(self, text: str, name: str) -> None:
        """Log a text as an artifact, such as `report.md`."""
        self._outbox.upload_content(self._run, text.encode(), name)

    def figure(self, figure: "Figure", name: str) -> None:
        """Log a figure as the artifacts `<name>.png` and `<name>.svg`."""
        for suffix, content in rendered(figure).items():
            self._outbox.upload_content(self._run, content, f"{name}.{suffix}")

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Log files as artifacts in a folder, then a manifest with the sha256 of each file.

        The manifest is written last. A folder without a manifest is incomplete.

        Raises:
            TrackingError: two files have the same name.
        """
        manifest = to_json(manifest_of(paths))
        self._outbox.upload(UploadFolder(self._run, [str(path.absolute()) for path in paths], folder, manifest))
        self.flush()

    def has_files(self, run_id: str, folder: str) -> bool:
        """Whether a run of this store has a complete folder of files; False for a run that the store does not have."""
        return self.has_run(run_id) and is_complete(self.client, run_id, folder)

    def has_run(self, run_id: str) -> bool:
        """Whether the store has a run with an ID."""
        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == MISSING:
                return False
            raise
        return True

    @contextmanager
    def child(self, name: str) -> "Iterator[MlflowTracker]":
        """Start a child run. It ends when the block exits, with status FINISHED, FAILED or KILLED."""
        with ending(lambda: _create_child(self._outbox, new_key(), self._run, name)) as tracker:
            yield tracker

    def picklable_parent(self) -> "RemoteRun":
        """A picklable reference to this run, with which another process can start child runs."""
        self.flush()
        exists = self._run == self._outbox.run or self._run in self._outbox.run_ids
        return RemoteRun(self._outbox.tracking_uri, self.run_id if exists else self._outbox.run)

    def end(self, error: BaseException | None, hurry: Callable[[], bool]) -> None:
        """Set the final status of the run, after its writes.

        Args:
            error: the exception that ended the run; None if the run completed.
            hurry: whether a signal came meanwhile.
        """
        status = _status(error)
        reason = without_password(f"{type(error).__name__}: {error}") if status == "FAILED" else None
        self._description.finish(status, reason)
        text = self._description.markdown()
        tags = ({DESCRIPTION_TAG: text} if text else {}) | ({ERROR_TAG: reason} if reason else {})
        if tags:
            self.tags(tags)
        self._outbox.upload(EndRun(self._run, status, now_ms()))
        if self._is_last:
            _leave_active_run(self._run)
            self._outbox.close(by_signal=ended_by_signal(error), hurry=hurry)
        else:
            self.flush()

    def _accepts(self, metric: str) -> bool:
        problem = metric_problem(metric)
        if problem and metric not in self._refused:
            self._refused.add(metric)
            log.warning("the metric %r is not logged: %s", metric, problem)
        return problem is None


@dataclass(frozen=True)
class RemoteRun:
    """A picklable reference to a run, with which another process can start child runs.

    If the tracking store is a server, the processes can be on different machines.
    """

    tracking_uri: str
    run_id: str

    @contextmanager
    def child(self, name: str) -> "Iterator[MlflowTracker]":
        """Start a child run. It ends when the block exits, with status FINISHED, FAILED or KILLED."""
        mlflow.set_tracking_uri(self.tracking_uri)
        key = new_key()

        def create() -> MlflowTracker:
            return _create_child(Outbox(self.tracking_uri, key), key, self.run_id, name, is_last=True)

        with ending(create) as tracker:
            yield tracker


@contextmanager
def ending(create: Callable[[], MlflowTracker]) -> Iterator[MlflowTracker]:
    """Create a run, and end it with the block, with a status that depends on the exception of the block.

    Signals wait while the run is created and ended, so that none leaves it without a status.
    """
    tracker = None
    error: BaseException | None = None
    try:
        with held():
            tracker = create()
        yield tracker
    except BaseException as raised:
        error = raised
        raise
    finally:
        if tracker is not None:
            with held() as waiting:
                tracker.end(error, waiting)


def _create_child(outbox: Outbox, key: str, parent: str, name: str, *, is_last: bool = False) -> MlflowTracker:
    outbox.record(CreateRun(key, parent, name, now_ms(), process_tags()))
    outbox.flush()
    return MlflowTracker(outbox, key, is_last=is_last)


def _leave_active_run(run_id: str) -> None:
    """Do what `mlflow.end_run` does to MLflow's active run, but without a write that can fail or block."""
    runs = fluent._active_run_stack.get()
    if runs and runs[-1].info.run_id == run_id:
        runs.pop()
    monitor = fluent.run_id_to_system_metrics_monitor.pop(run_id, None)
    if monitor is not None:
        monitor.finish()


def _status(error: BaseException | None) -> str:
    """The MLflow status of a run that ended with an exception: FINISHED, FAILED or KILLED."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    return "KILLED" if ended_by_signal(error) else "FAILED"


def _param_text(value: Any) -> str:
    """The text of a parameter, as on the command line: `none`, `true`, `0.001`, `{"hidden": 64}`."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_PARAM_VAL_LENGTH else text[: MAX_PARAM_VAL_LENGTH - 1] + "…"
