"""MLflow runs: start runs and child runs, log to them, and set their final status."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from ..core.config import Config
from ..core.signals import ended_by_signal, held, terminable
from ..core.text import shown
from ..figures import rendered
from .artifacts import is_complete
from .connection import (
    MISSING,
    connect,
    default_experiment_name,
    experiment_id,
    get_run,
    translate_errors,
    translate_store_errors,
)
from .descriptions import Description, describe_experiment
from .manifests import MANIFEST, manifest_of, to_json
from .metrics import MetricBuffer
from .tags import DATASET_CONTEXT_TAG, DESCRIPTION_TAG, ERROR_TAG, LONGEST_TAG, NAME_TAG, PARENT_TAG, SOURCE_TAGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Limits that every MLflow store accepts:
_MAX_DIGEST_LENGTH = 36  # [characters]
_MAX_CONTEXT_LENGTH = 500  # [characters]
_PARAMS_PER_BATCH = 100  # [count]

log = logging.getLogger(__name__)


class RunReference(NamedTuple):
    """The ID of a run and its tracking store."""

    run_id: str
    tracking_uri: str

    def __str__(self) -> str:
        where = f"on {self.tracking_uri}" if self.tracking_uri.startswith("http") else "(shown by `mlflow ui`)"
        return f"{self.run_id} {where}"


class MlflowTracker:
    """A `Tracker` that logs to an MLflow run. Every call passes the run ID, so MLflow's active run has no effect."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._metrics = MetricBuffer(client, run_id)
        self._description = Description()

    @property
    def reference(self) -> RunReference:
        """The ID of the run and its tracking store."""
        return RunReference(self.run_id, self.client.tracking_uri)

    @property
    def experiment_id(self) -> str:
        """The ID of the run's experiment."""
        return str(get_run(self.client, self.run_id).info.experiment_id)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, except those that the run already has.

        A run that was started by `mlflow run` already has the command-line arguments, logged as text. The artifact
        `config.json` has the values with their types.
        """
        existing = self.client.get_run(self.run_id).data.params
        new = [Param(name, _param_text(value)) for name, value in values.items() if name not in existing]
        for start in range(0, len(new), _PARAMS_PER_BATCH):
            self.client.log_batch(self.run_id, params=new[start : start + _PARAMS_PER_BATCH])

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags. An existing value is replaced; a long value is truncated."""
        tags = [RunTag(name, str(value)[:LONGEST_TAG]) for name, value in values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def describe(self, *, purpose: str | None = None, result: str | None = None, links: str | None = None) -> None:
        """Update the description of the run in the MLflow UI. Each argument is one line of Markdown.

        Args:
            purpose: purpose of the run; replaces the previous purpose.
            result: result of the run; replaces the previous result. If the run fails, the error replaces the result.
            links: related runs, versions and files; appended to the previous links.
        """
        self._description.update(purpose, result, links)
        self.tags({DESCRIPTION_TAG: self._description.markdown()})

    def describe_status(self, status: str, error: str | None) -> None:
        """Add the final status of the run to its description, and set the error tag.

        Args:
            status: FINISHED, KILLED or FAILED.
            error: the error of a failed run.
        """
        self._description.finish(status, error)
        text = self._description.markdown()
        self.tags(({DESCRIPTION_TAG: text} if text else {}) | ({ERROR_TAG: error} if error else {}))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step. They are buffered and sent in batches."""
        self._metrics.add(values, step)

    def flush(self) -> None:
        """Send all buffered metrics."""
        self._metrics.flush()

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Log a data set as an input of the run.

        Args:
            name: name of the data set.
            source: path or URL of the data.
            digest: digest of the contents; truncated to 36 characters.
            context: use of the data in the run, such as "training".
        """
        source_type = "http" if source.startswith(("http://", "https://")) else "local"
        source_json = json.dumps({"url" if source_type == "http" else "uri": source})
        data = Dataset(name=name, digest=digest[:_MAX_DIGEST_LENGTH], source_type=source_type, source=source_json)
        inputs = [DatasetInput(data, [InputTag(DATASET_CONTEXT_TAG, context[:_MAX_CONTEXT_LENGTH])])]
        try:
            self.client.log_inputs(self.run_id, inputs)
        except MlflowException:  # another process has just created the same data set; the second call finds it
            self.client.log_inputs(self.run_id, inputs)

    def text(self, text: str, name: str) -> None:
        """Log a text as an artifact, such as `report.md`."""
        self.client.log_text(self.run_id, text, name)

    def figure(self, figure: "Figure", name: str) -> None:
        """Log a figure as the artifacts `<name>.png` and `<name>.svg`."""
        folder, _, stem = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            for suffix, content in rendered(figure).items():
                path = Path(temporary, f"{stem}.{suffix}")
                path.write_bytes(content)
                self.client.log_artifact(self.run_id, str(path), folder or None)

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Log files as artifacts in a folder, then a manifest with the sha256 of each file.

        The manifest is written last. A folder without a manifest is incomplete.

        Raises:
            TrackingError: two files have the same name.
        """
        self.flush()
        entries = manifest_of(paths)
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder)
        self.client.log_text(self.run_id, to_json(entries), f"{folder}/{MANIFEST}")

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
        self.flush()
        parent = get_run(self.client, self.run_id)
        inherited = {tag: parent.data.tags[tag] for tag in SOURCE_TAGS if tag in parent.data.tags}
        tags = {**inherited, PARENT_TAG: self.run_id}

        def create() -> MlflowTracker:
            run = self.client.create_run(parent.info.experiment_id, tags=tags, run_name=name)
            return MlflowTracker(self.client, run.info.run_id)

        with _ended(create) as tracker:
            yield tracker

    def picklable_parent(self) -> "RemoteRun":
        """A picklable reference to this run, with which another process can start child runs."""
        self.flush()
        return RemoteRun(self.client.tracking_uri, self.run_id)


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
    """Start an MLflow run. It ends when the block exits, with status FINISHED, FAILED or KILLED.

    If the environment variable MLFLOW_RUN_ID is set, for example by `mlflow run`, that run is resumed. It keeps its
    name, and its tag `metaopt.name` is set to `name`. If the experiment has no description, metaopt sets one.

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
        experiment: name of the MLflow experiment; by default MLFLOW_EXPERIMENT_NAME, or "metaopt" if that is not set.
        tracking_uri: tracking store; the default of `connect` if None.
        tags: tags of the run.
        description: purpose of the run, in one line of Markdown.
        parent: ID of the parent run, for a child run in a separate process.
    Raises:
        TrackingError: the store does not respond at the start or during the run, or the experiment or the run of
            MLFLOW_RUN_ID cannot be used.
    """
    with terminable():
        client = connect(tracking_uri)

        def create() -> MlflowTracker:
            run_exists = bool(os.environ.get("MLFLOW_RUN_ID"))
            run = _resume_run(client, name) if run_exists else _create_run(client, name, experiment, parent)
            describe_experiment(client, run.info.experiment_id)
            return MlflowTracker(client, run.info.run_id)

        with translate_store_errors(client), _ended(create, active=True) as tracker:
            if description:
                tracker.describe(purpose=description)
            tracker.tags(tags or {})
            tracker.params(config.to_mapping())
            tracker.text(config.to_json(), "config.json")
            yield tracker


def _resume_run(client: MlflowClient, name: str) -> Run:
    """Resume the run of MLFLOW_RUN_ID. It keeps its name, because a user may have chosen it."""
    run_id = os.environ["MLFLOW_RUN_ID"]
    with translate_errors(f"cannot resume run {run_id} (MLFLOW_RUN_ID)", "unset MLFLOW_RUN_ID, or use `mlflow run`"):
        run = mlflow.start_run()  # also unsets MLFLOW_RUN_ID, so child processes do not resume this run
        client.set_tag(run_id, NAME_TAG, name)
        return run


def _create_run(client: MlflowClient, name: str, experiment: str | None, parent: str | None) -> Run:
    experiment_name = experiment or default_experiment_name()
    with translate_errors(f"cannot start run {shown(name)}", "check that the tracking store exists and responds"):
        run_experiment_id = (
            get_run(client, parent).info.experiment_id if parent else experiment_id(client, experiment_name)
        )
        return mlflow.start_run(run_name=name, experiment_id=run_experiment_id, nested=True, parent_run_id=parent)


@contextmanager
def _ended(create: Callable[[], MlflowTracker], *, active: bool = False) -> Iterator[MlflowTracker]:
    """Create a run, and end it when the block exits, with a status that depends on the exception of the block.

    Signals wait while the run is created and ended, so that none leaves it without a status. An exception of the block
    is raised again. If setting the status then fails, this failure is only logged.

    Args:
        active: whether the run is MLflow's active run.
    """
    tracker = None
    try:
        with held():
            tracker = create()
        yield tracker
        tracker.flush()
    except BaseException as error:
        with held():
            _finish_failed(tracker, error, active)
        raise
    with held():
        _finish(tracker, None, active)


def _finish_failed(tracker: MlflowTracker | None, error: BaseException, active: bool) -> None:
    if tracker is None:
        return
    try:
        _finish(tracker, error, active)
        tracker.flush()
    except Exception as failure:
        log.warning("could not record the final status of run %s: %s", tracker.run_id, failure)


def _finish(tracker: MlflowTracker, error: BaseException | None, active: bool) -> None:
    status = _status(error)
    if active:
        mlflow.end_run(status)
    else:
        tracker.client.set_terminated(tracker.run_id, status)
    tracker.describe_status(status, f"{type(error).__name__}: {error}" if status == "FAILED" else None)


def _status(error: BaseException | None) -> str:
    """The MLflow status of a run: FINISHED, FAILED or KILLED.

    Args:
        error: the exception that ended the run; None if the run completed.
    """
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    if ended_by_signal(error):
        return "KILLED"
    return "FAILED"


def _param_text(value: Any) -> str:
    """The text of a parameter, as on the command line: `none`, `true`, `0.001`, `{"hidden": 64}`."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
