"""Work that is done in the background, in order, with little of it waiting at a time."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Runs pieces of work one after another in a thread, so that whoever hands them over need not wait for them.

    A context manager: when the block is left, everything that was handed over is done and the thread is gone. Once a
    piece fails, those after it are left undone, and every later call raises the very error that it raised. A block
    that is left by an error keeps that error.

    Args:
        most: how many pieces may be unfinished, the one that is being done included [count].
    """

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metaopt-writer")  # the interpreter waits for it, too
        self._unfinished: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Hand over a piece of work, once there is room for it."""
        self.wait_for_room()
        before = self._unfinished[-1] if self._unfinished else None
        self._unfinished.append(self._thread.submit(_after, before, work))

    def wait_for_room(self) -> None:
        """Wait until another piece may come: before it is made, where it takes memory."""
        self._settle(self._most - 1)

    def flush(self) -> None:
        """Wait until everything that was handed over is done."""
        self._settle(0)

    def _settle(self, most: int) -> None:
        while self._unfinished and (len(self._unfinished) > most or self._unfinished[0].done()):
            self._unfinished[0].result()  # one that failed stays the first, and so do all later calls fail
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
                log.warning("not everything was written: %s", failure)
        finally:
            self._thread.shutdown()


def _after(before: Future[None] | None, work: Callable[[], None]) -> None:
    """Do a piece of work unless the one before it failed; then fail in the same way."""
    if before is not None:
        before.result()
    work()
