"""How a run's end is told from what ended its block, and how a signal ends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.signals import TERMINATED, redeliver_lost_signals, terminate


def status_after(error: BaseException | None) -> str:
    """MLflow's word for how a run ended: FINISHED, FAILED or KILLED."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == TERMINATED):
        return "KILLED"
    return "FAILED"


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block like an error does, so that the run does not stay RUNNING for ever."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with redeliver_lost_signals():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
