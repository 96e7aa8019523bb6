"""Signals that end a process: they raise an exception once, so that open files are closed and runs are recorded.

Ctrl-C (SIGINT) raises `KeyboardInterrupt`; SIGTERM and SIGHUP, which a closed terminal sends, raise `SystemExit`.
Further signals do not interrupt what these exceptions started, except the third one after some seconds.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that Ctrl-C ended."""

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM ended."""

HUNG_UP = 128 + signal.SIGHUP
"""Exit code of a process whose terminal was closed."""

FORCED_AFTER = 5.0
"""Time after the first signal from which the third one interrupts the end of a block [s]."""

_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
_FORCING = 3  # the signal that may interrupt the end [count]
_DELAY = 0.05  # before a lost signal is sent again [s]


class _Received:
    """The signals of the outermost `terminable` block of this process."""

    def __init__(self) -> None:
        self.active = False
        self.holding = 0
        self.pending: int | None = None
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.first = 0.0

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.holding and not self.count:
            self.pending = signum
            return
        self.count += 1
        if self.count == 1:
            self.first = time.monotonic()
        elif self.count < _FORCING or time.monotonic() - self.first < FORCED_AFTER:
            return
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    def raise_pending(self) -> None:
        signum, self.pending = self.pending, None
        if signum is not None:
            self.handle(signum, None)


_received = _Received()


@contextmanager
def terminable(*, until_exit: bool = False) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the block by one exception. No effect outside the main thread.

    Handlers of the application, and signals that it ignores (as under `nohup`), stay as they are.

    Args:
        until_exit: after a signal, ignore further ones until the process exits, for a block that is the whole program.
    """
    if threading.current_thread() is not threading.main_thread() or _received.active:  # Python sets handlers only there
        yield
        return
    replaced = {signum: default for signum, default in _DEFAULTS.items() if signal.getsignal(signum) == default}
    _received.active = True
    _received.clear()
    try:
        for signum in replaced:
            signal.signal(signum, _received.handle)
        with resend_lost_signals():
            yield
    finally:
        for signum, previous in replaced.items():
            signal.signal(signum, signal.SIG_IGN if until_exit and _received.count else previous)
        _received.active = False


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Delay signals until the block ends, as for creating a run and noting its ID.

    Yields: a function that returns whether a signal is waiting, for blocks that can end sooner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    _received.holding += 1
    try:
        yield lambda: _received.pending is not None
    finally:
        _received.holding -= 1
        if not _received.holding:
            _received.raise_pending()


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals for processes that start in the block, until they call `unblock`; this process gets them later.

    A process can handle no signal while it imports its modules, and would print a stack trace.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEFAULTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Receive the signals that `blocked` held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DEFAULTS)


def ended_by_signal(error: BaseException | None) -> bool:
    """Whether an exception is that of a signal."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code in (INTERRUPTED, TERMINATED, HUNG_UP)
    )


@contextmanager
def resend_lost_signals() -> Iterator[None]:
    """Send a signal again if Python drops its exception, as it does in a finalizer."""
    report = sys.unraisablehook

    def resend(lost: "sys.UnraisableHookArgs") -> None:
        if not ended_by_signal(lost.exc_value):
            report(lost)
            return
        _received.clear()
        code = lost.exc_value.code if isinstance(lost.exc_value, SystemExit) else INTERRUPTED
        signum = int(code or INTERRUPTED) - 128
        threading.Timer(_DELAY, signal.pthread_kill, (threading.main_thread().ident, signum)).start()

    sys.unraisablehook = resend
    try:
        yield
    finally:
        sys.unraisablehook = report
