"""Writes to a tracking store as data: they wait in a queue, are repeated after a failure, and can be kept in a file.

Each can be applied twice: the second time changes nothing.
"""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from ..core.errors import TrackingError
from .manifests import MANIFEST, manifest_of, to_json
from .tags import DATASET_CONTEXT_TAG, KEY_TAG, PARENT_TAG, SOURCE_TAGS

_PER_BATCH = 100  # parameters and tags that every store accepts in one call [count]

NEW = "new-"
"""Beginning of the keys of runs that the queue creates."""

RunIds = MutableMapping[str, str]
"""IDs of child runs by their key. A run that existed before has its ID as key and is not in it."""


@dataclass(frozen=True)
class Operation(ABC):
    """A write to one run.

    Attributes:
        run: key of the run.
    """

    run: str
    kinds: ClassVar[dict[str, type["Operation"]]] = {}

    def __init_subclass__(cls) -> None:
        Operation.kinds[cls.__name__] = cls

    @abstractmethod
    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write to the store.

        Raises:
            MlflowException, OSError: the store failed.
            KeyError: the run is not created yet.
            TrackingError: a local file is missing or was changed.
        """

    def run_id(self, run_ids: RunIds) -> str:
        """ID of the run in the store."""
        return run_ids[self.run] if self.run.startswith(NEW) else self.run

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps({"kind": type(self).__name__, **dataclasses.asdict(self)})

    @staticmethod
    def from_json(line: str) -> "Operation":
        """The operation of a line.

        Raises:
            ValueError, KeyError, TypeError: it is not an operation.
        """
        values = json.loads(line)
        return Operation.kinds[values.pop("kind")](**values)


@dataclass(frozen=True)
class CreateRun(Operation):
    """Create a child run. Its tag `metaopt.key` finds it if the answer to an earlier attempt was lost.

    Attributes:
        parent: key of the parent run.
        start_time: [ms since 1970].
    """

    parent: str
    name: str
    start_time: int
    tags: Mapping[str, str]

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Create the run, unless it exists."""
        parent = client.get_run(run_ids.get(self.parent, self.parent))
        experiment = parent.info.experiment_id
        found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{self.run}'", max_results=1)
        if found:
            run_ids[self.run] = found[0].info.run_id
            return
        inherited = {tag: parent.data.tags[tag] for tag in SOURCE_TAGS if tag in parent.data.tags}
        tags = {**inherited, **self.tags, PARENT_TAG: parent.info.run_id, KEY_TAG: self.run}
        run_ids[self.run] = client.create_run(experiment, self.start_time, tags, self.name).info.run_id


@dataclass(frozen=True)
class LogMetrics(Operation):
    """Log metrics: name, value, time [ms since 1970] and step of each."""

    values: Sequence[tuple[str, float, int, int]]

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write in one call."""
        metrics = [Metric(name, float(value), time, step) for name, value, time, step in self.values]
        client.log_batch(self.run_id(run_ids), metrics=metrics, synchronous=True)


def merged(operations: Sequence[LogMetrics]) -> Iterator[LogMetrics]:
    """The same metrics with one operation per run."""
    by_run: dict[str, list[tuple[str, float, int, int]]] = {}
    for operation in operations:
        by_run.setdefault(operation.run, []).extend(operation.values)
    for run, values in by_run.items():
        yield LogMetrics(run, values)


@dataclass(frozen=True)
class LogParams(Operation):
    """Log parameters, except those that the run already has."""

    values: Mapping[str, str]

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write in calls of 100."""
        run_id = self.run_id(run_ids)
        existing = client.get_run(run_id).data.params
        new = [Param(name, value) for name, value in self.values.items() if name not in existing]
        for start in range(0, len(new), _PER_BATCH):
            client.log_batch(run_id, params=new[start : start + _PER_BATCH], synchronous=True)


@dataclass(frozen=True)
class SetTags(Operation):
    """Set tags; earlier values are replaced."""

    values: Mapping[str, str]

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write in calls of 100."""
        tags = [RunTag(name, value) for name, value in self.values.items()]
        for start in range(0, len(tags), _PER_BATCH):
            client.log_batch(self.run_id(run_ids), tags=tags[start : start + _PER_BATCH], synchronous=True)


@dataclass(frozen=True)
class LogDataset(Operation):
    """Log a data set as an input of the run."""

    name: str
    digest: str
    source_type: str
    source: str
    context: str

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write in one call."""
        data = Dataset(self.name, self.digest, self.source_type, self.source)
        inputs = [DatasetInput(data, [InputTag(DATASET_CONTEXT_TAG, self.context)])]
        try:
            client.log_inputs(self.run_id(run_ids), inputs)
        except MlflowException:  # another process has just created the same data set; the second call finds it
            client.log_inputs(self.run_id(run_ids), inputs)


@dataclass(frozen=True)
class UploadFile(Operation):
    """Upload a file of the queue, such as a text or a figure.

    Attributes:
        path: local file, which the queue removes after the upload.
        folder: artifact folder; None for the top.
    """

    path: str
    folder: str | None

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Upload the file."""
        if not Path(self.path).is_file():
            raise TrackingError(f"{self.path} does not exist any more; expected the file of an artifact")
        client.log_artifact(self.run_id(run_ids), self.path, self.folder)


@dataclass(frozen=True)
class UploadFolder(Operation):
    """Upload files of a training into one folder, and last their manifest: a folder without one is incomplete.

    Attributes:
        manifest: size and sha256 of each file when it was logged.
    """

    paths: Sequence[str]
    folder: str
    manifest: str

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Upload the files and the manifest."""
        run_id, paths = self.run_id(run_ids), [Path(path) for path in self.paths]
        if not all(path.is_file() for path in paths) or to_json(manifest_of(paths)) != self.manifest:
            raise TrackingError(
                f"the files of {self.folder} in {paths[0].parent} were removed or changed before their upload; "
                "expected those of the run"
            )
        for path in paths:
            client.log_artifact(run_id, str(path), self.folder)
        client.log_text(run_id, self.manifest, f"{self.folder}/{MANIFEST}")


@dataclass(frozen=True)
class EndRun(Operation):
    """Set the final status of a run.

    Attributes:
        end_time: [ms since 1970].
    """

    status: str
    end_time: int

    def apply(self, client: MlflowClient, run_ids: RunIds) -> None:
        """Write in one call."""
        client.set_terminated(self.run_id(run_ids), self.status, self.end_time)
