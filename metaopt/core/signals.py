"""Termination signals: they end a process by an exception, so that open files are closed and runs are recorded."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM ended."""

_DELAY = 0.05  # before a lost signal is sent again [s]


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block by a `SystemExit`, like an error. No effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers only there
        yield
        return
    previous = signal.signal(signal.SIGTERM, exit_on_sigterm)
    try:
        with resend_lost_signals():
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def exit_on_sigterm(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM.

    Raises:
        SystemExit: always.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher may send it again while the end is recorded
    raise SystemExit(TERMINATED)


@contextmanager
def resend_lost_signals() -> Iterator[None]:
    """Send Ctrl-C or SIGTERM again if Python drops its exception, as it does in a finalizer."""
    report = sys.unraisablehook

    def resend(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            signum = signal.SIGINT
        elif isinstance(lost.exc_value, SystemExit) and lost.exc_value.code == TERMINATED:
            signum = signal.SIGTERM
            signal.signal(signum, exit_on_sigterm)  # the first call made the process ignore it
        else:
            report(lost)
            return
        threading.Timer(_DELAY, signal.pthread_kill, (threading.main_thread().ident, signum)).start()

    sys.unraisablehook = resend
    try:
        yield
    finally:
        sys.unraisablehook = report
