"""A background thread that writes files in order, with a bounded queue."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Runs jobs one after another in a background thread.

    As a context manager it waits for all jobs and ends the thread on exit. After a job fails, later jobs are skipped,
    and every later call raises the error of that job. An error raised in the block takes precedence.

    Args:
        max_unfinished: maximum number of unfinished jobs, including the running one [count].
    """

    def __init__(self, max_unfinished: int = 2) -> None:
        self._max_unfinished = max_unfinished
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metaopt-writer")  # not a daemon: it finishes at exit
        self._unfinished: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Add a job, after waiting until the queue has room."""
        self.wait_for_room()
        previous = self._unfinished[-1] if self._unfinished else None
        self._unfinished.append(self._thread.submit(_run_after, previous, job))

    def wait_for_room(self) -> None:
        """Wait until the queue has room; call this before preparing a job that takes memory."""
        self._wait(self._max_unfinished - 1)

    def flush(self) -> None:
        """Wait until all jobs are finished."""
        self._wait(0)

    def _wait(self, max_unfinished: int) -> None:
        while self._unfinished and (len(self._unfinished) > max_unfinished or self._unfinished[0].done()):
            self._unfinished[0].result()  # a failed job stays first, so all later calls raise its error
            self._unfinished.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:
                log.warning("some files were not written: %s", failure)
        finally:
            self._thread.shutdown()


def _run_after(previous: Future[None] | None, job: Callable[[], None]) -> None:
    """Run a job, or raise the error of the previous one."""
    if previous is not None:
        previous.result()
    job()
