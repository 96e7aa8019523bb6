"""A queue of writes to the tracking store: a background thread applies them in order and repeats one that fails."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..core.errors import TrackingError
from .operations import LogMetrics, Operation, RunIds, UploadFile, merged
from .store_errors import store_reason

MAX_DELAY = 2.0
"""Time that metrics wait for more metrics [s]: one write per metric would take longer than the training."""

BATCH_SIZE = 900
"""Metrics per write [count]; MLflow accepts at most 1,000."""

IN_MEMORY = 5_000
"""Operations in memory; further ones wait in a file [count]."""

MOMENT = 5.0
"""Longest time that a training waits for the store [s]."""

_PAUSES = (0.5, 30.0)  # first and longest pause before a failed write is repeated [s]
_LAST_PAUSE = 1.0  # longest pause while a run ends [s]
_REFUSED = "INVALID_PARAMETER_VALUE"
_NEVER = float("inf")
_THREAD = "metaopt-tracking"

log = logging.getLogger(__name__)


def _is_from_elsewhere(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD


for _name in ("mlflow.store.db.utils", "urllib3.connectionpool"):  # they log each attempt; this module warns once
    logging.getLogger(_name).addFilter(_is_from_elsewhere)


class _Waiting:
    """Operations in order, of which at most `IN_MEMORY` are in memory and the rest in a file."""

    def __init__(self, overflow: Path) -> None:
        self._memory: deque[Operation] = deque()
        self._overflow = overflow
        self._in_file = self._position = 0

    def __len__(self) -> int:
        return len(self._memory) + self._in_file

    def append(self, operation: Operation) -> None:
        if self._in_file or len(self._memory) >= IN_MEMORY:
            with self._overflow.open("a", encoding="utf-8") as file:
                file.write(operation.json() + "\n")
            self._in_file += 1
        else:
            self._memory.append(operation)

    def head(self) -> list[Operation]:
        """The first operation, or all metrics at the front that fit one write."""
        if not self._memory:
            self._memory.extend(islice(self._rest(), IN_MEMORY))
        first: list[Operation] = []
        count = 0
        for operation in self._memory:
            count += len(operation.values) if isinstance(operation, LogMetrics) else BATCH_SIZE
            if first and count > BATCH_SIZE:
                break
            first.append(operation)
        return first

    def remove(self, count: int) -> None:
        for _ in range(count):
            self._memory.popleft()

    def all(self) -> Iterator[Operation]:
        yield from self._memory
        position, in_file = self._position, self._in_file
        yield from self._rest()
        self._position, self._in_file = position, in_file

    def _rest(self) -> Iterator[Operation]:
        if not self._in_file:
            return
        with self._overflow.open(encoding="utf-8") as file:
            file.seek(self._position)
            while self._in_file and (line := file.readline()):
                self._position, self._in_file = file.tell(), self._in_file - 1
                yield Operation.from_json(line)


class Outage:
    """Which queues of a store fail at present; each outage gives one warning, however many queues notice it."""

    def __init__(self) -> None:
        self._failing: set[object] = set()
        self._lock = threading.Lock()

    def begins(self, queue: object) -> bool:
        """Note that a queue fails; return whether it is the first one that does."""
        with self._lock:
            first = not self._failing
            self._failing.add(queue)
            return first

    def ends(self, queue: object) -> None:
        """Note that a queue works again."""
        with self._lock:
            self._failing.discard(queue)


class WriteQueue:
    """Applies operations in order in a background thread.

    Args:
        client: makes the client; called in the thread, because it connects to the store.
        run_ids: IDs of the child runs that operations create.
        overflow: file for operations that do not fit in memory.
        outage: shared by the queues of a store.
    """

    def __init__(self, client: Callable[[], MlflowClient], run_ids: RunIds, overflow: Path, outage: Outage) -> None:
        self._outage = outage
        self._client = client
        self._run_ids = run_ids
        self._waiting = _Waiting(overflow)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._due = _NEVER
        self._busy_since: float | None = None
        self._progress = 0.0
        self._ending = self._closed = False
        self.error: Exception | None = None
        """The error of the last attempt; None if it succeeded."""

    def put(self, operation: Operation) -> None:
        """Append an operation; metrics wait for more metrics."""
        with self._changed:
            try:
                self._waiting.append(operation)
            except OSError as error:  # the disk is full, and so is the memory
                log.warning("%s of a run is lost: %s", type(operation).__name__, error)
                return
            delay = MAX_DELAY if isinstance(operation, LogMetrics) else 0.0
            self._due = min(self._due, time.monotonic() + delay)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> bool:
        """Wait until all is written, for `MOMENT` at most and not at all if the store fails.

        Returns: whether all is written.
        """
        begin = time.monotonic()

        def too_long(now: float) -> bool:
            return self.error is not None or now - min(begin, self._busy_since or begin) > MOMENT

        return self._wait(too_long)

    def end(self, patience: float, stalled: float, hurry: Callable[[], bool]) -> bool:
        """Wait until all is written, as long as that may succeed.

        Args:
            patience: longest time without a success while the store fails [s].
            stalled: longest time without a success otherwise [s].
            hurry: whether to wait no longer than a moment.
        Returns: whether all is written.
        """
        begin = time.monotonic()
        self._ending = True

        def hopeless(now: float) -> bool:
            idle = now - max(begin, self._progress)
            return idle > (patience if self.error else stalled) or (hurry() and now - begin > MOMENT)

        return self._wait(hopeless)

    def close(self) -> list[Operation]:
        """Stop; return the operations that are not written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return list(self._waiting.all())

    def _wait(self, hopeless: Callable[[float], bool]) -> bool:
        with self._changed:
            self._due = 0.0 if len(self._waiting) else _NEVER
            self._changed.notify_all()
            while len(self._waiting):
                if hopeless(time.monotonic()):
                    return False
                self._changed.wait(0.05)
            return True

    def _work(self) -> None:
        pause, longest = _PAUSES
        while (operations := self._next()) is not None:
            written = self._try(operations)
            with self._changed:
                self._busy_since = None
                if self._closed:
                    return
                if written:
                    self._waiting.remove(len(operations))
                    self._due = self._due if len(self._waiting) else _NEVER
                    self._progress = time.monotonic()
                    pause = _PAUSES[0]
                    self._changed.notify_all()
                else:
                    self._due = 0.0
                    self._rest(pause)
                    pause = min(2 * pause, longest)

    def _rest(self, seconds: float) -> None:
        """Pause before a failed write is repeated; shorter if the run ends meanwhile."""
        until = time.monotonic() + seconds
        while not self._closed and (left := until - time.monotonic()) > 0:
            self._changed.wait(min(left, _LAST_PAUSE))
            if self._ending:
                return

    def _next(self) -> list[Operation] | None:
        """Wait for operations that are due; None if the queue is closed."""
        with self._changed:
            while not self._closed:
                first = self._waiting.head()
                left = self._due - time.monotonic()
                if first and (left <= 0 or _is_full(first)):
                    if len(first) == len(self._waiting):
                        self._due = _NEVER
                    self._busy_since = time.monotonic()
                    return first
                self._changed.wait(left if first and left < _NEVER else None)
            return None

    def _try(self, operations: list[Operation]) -> bool:
        """Apply operations; return whether they are done with."""
        metrics = [each for each in operations if isinstance(each, LogMetrics)]
        try:
            client = self._client()
            for operation in merged(metrics) if metrics else operations:
                operation.apply(client, self._run_ids)
        except Exception as error:
            refused = isinstance(error, MlflowException) and error.error_code == _REFUSED
            if refused or isinstance(error, TrackingError):
                log.warning("not in the tracking store: %s", store_reason(error))
            else:
                self._note(error)
                return False
        self._note(None)
        for operation in operations:
            if isinstance(operation, UploadFile):
                Path(operation.path).unlink(missing_ok=True)
        return True

    def _note(self, error: Exception | None) -> None:
        self.error = error
        if error is None:
            self._outage.ends(self)
        elif not isinstance(error, KeyError) and self._outage.begins(self):
            log.warning(
                "the tracking store fails (%.300s); writes wait for it, and the run goes on", store_reason(error)
            )


def _is_full(operations: list[Operation]) -> bool:
    return sum(len(each.values) for each in operations if isinstance(each, LogMetrics)) >= BATCH_SIZE
