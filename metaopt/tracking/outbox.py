"""The writes of a run and its child runs: nothing that only describes a training ends it or holds it up.

Records (metrics, parameters, tags, statuses) and files have a queue each, because one store can fail without the other.
"""

import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient

from ..core.errors import StorageError, TrackingError
from .operations import NEW, EndRun, Operation, SetTags, UploadFile
from .store_errors import store_reason, without_password
from .tags import UNSENT_TAG
from .unsent import UNSENT, save_unsent
from .write_queue import Outage, WriteQueue

PATIENCE = 60.0
"""Time that the end of a run waits for a store that fails [s]."""

PATIENCE_OF_SIGNALS = 3.0
"""The same for a run that a signal ended [s]."""

_STALLED = 600.0  # longest upload of one file [s]

log = logging.getLogger(__name__)


class Outbox:
    """Writes to a run and its child runs in the background, and keeps in a folder what could not be written.

    Args:
        tracking_uri: the store.
        run: key of the run; the folder of unsent writes has its name.
        experiment_id: ID of the experiment of the runs, if it is known.
    """

    def __init__(self, tracking_uri: str, run: str, experiment_id: str | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.run = run
        self.experiment_id = experiment_id
        self.run_ids: dict[str, str] = {}
        self._client: MlflowClient | None = None
        self._keeps = run.startswith(NEW)  # a refused start is an error, and leaves nothing
        self._folder = Path(tempfile.mkdtemp(prefix="metaopt-"))
        outage = Outage()
        self._records = WriteQueue(self.client, self.run_ids, self._folder / "records.jsonl", outage)
        self._files = WriteQueue(self.client, self.run_ids, self._folder / "files.jsonl", outage)

    def client(self) -> MlflowClient:
        """The client of the store, which is connected at the first call."""
        self._client = self._client or MlflowClient(self.tracking_uri)
        return self._client

    def record(self, operation: Operation) -> None:
        """Write a record."""
        self._records.put(operation)

    def upload(self, operation: Operation) -> None:
        """Upload files, or set the status of a run after its files."""
        self._files.put(operation)

    def upload_content(self, run: str, content: bytes, name: str) -> None:
        """Upload a file whose content is in memory, as an artifact with a name such as `figures/loss.svg`."""
        folder, _, file_name = name.rpartition("/")
        path = self._folder / uuid.uuid4().hex / file_name
        try:
            path.parent.mkdir()
            path.write_bytes(content)
        except OSError as error:
            log.warning("the artifact %s is lost: %s", name, error)
            return
        self.upload(UploadFile(run, str(path), folder or None))

    def flush(self) -> None:
        """Write all that waits: for a moment at most, and without waiting for a store that fails."""
        if self._records.flush():
            self._files.flush()

    def check(self) -> None:
        """Wait until all is written, before the work of a run begins.

        Raises:
            TrackingError: the store does not accept it.
        """
        for queue, what in ((self._records, "records"), (self._files, "files")):
            while not queue.flush():
                if queue.error is not None:
                    raise TrackingError(
                        f"the tracking store {without_password(self.tracking_uri)} does not accept {what}: "
                        f"{store_reason(queue.error)}. Expected a store that can be written; check its disk, its "
                        "rights and other processes that lock it, or set MLFLOW_TRACKING_URI to another store"
                    ) from queue.error
        self._keeps = True

    def close(self, *, by_signal: bool, hurry: Callable[[], bool]) -> None:
        """Write all that waits, as long as that may succeed, and keep the rest in a folder of the working directory.

        Args:
            by_signal: whether a signal ended the run.
            hurry: whether a signal came meanwhile.
        """
        patience = PATIENCE_OF_SIGNALS if by_signal or not self._keeps else PATIENCE
        if self._records.end(patience, patience, hurry) and not self._files.end(patience, _STALLED, hurry):
            self._end_without_files(patience, hurry)
        unsent = [*self._records.close(), *self._files.close()]
        if unsent and self._keeps:
            self._save(unsent)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_without_files(self, patience: float, hurry: Callable[[], bool]) -> None:
        """Set the final statuses of runs whose files wait."""
        for operation in self._files.close():
            if isinstance(operation, EndRun):
                self.record(SetTags(operation.run, {UNSENT_TAG: f"{UNSENT}/{self.run}"}))
                self.record(operation)
        self._records.end(patience, patience, hurry)

    def _save(self, unsent: list[Operation]) -> None:
        try:
            folder = save_unsent(unsent, self.run, self.tracking_uri, self.run_ids)
        except (OSError, StorageError) as error:
            log.error("%d writes of run %s are lost: no folder can be written (%s)", len(unsent), self.run, error)
            return
        log.warning(
            "the tracking store did not accept %d writes of run %s. Send them when it does, with "
            "`metaopt upload %s` in this folder",
            len(unsent),
            self.run_ids.get(self.run, self.run),
            folder,
        )


def new_key() -> str:
    """The key of a run that the queue creates."""
    return NEW + uuid.uuid4().hex


def now_ms() -> int:
    """The time [ms since 1970]."""
    return int(time.time() * 1000)
