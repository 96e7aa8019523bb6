"""How a process that is asked to end does so: by an exception, so that what is open is closed and recorded."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended."""

_MOMENT = 0.05  # until a signal that got lost is told again [s]


def terminate(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM.

    Raises:
        SystemExit: always.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher may send it twice; recording the end takes a moment
    raise SystemExit(TERMINATED)


@contextmanager
def redeliver_lost_signals() -> Iterator[None]:
    """Tell the process again of a Ctrl-C or SIGTERM whose exception Python dropped, as it does in a finaliser."""
    report = sys.unraisablehook

    def tell_again(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            asked = signal.SIGINT
        elif isinstance(lost.exc_value, SystemExit) and lost.exc_value.code == TERMINATED:
            asked = signal.SIGTERM
            signal.signal(asked, terminate)  # which ignores it from the first time on
        else:
            report(lost)
            return
        threading.Timer(_MOMENT, signal.pthread_kill, (threading.main_thread().ident, asked)).start()

    sys.unraisablehook = tell_again
    try:
        yield
    finally:
        sys.unraisablehook = report
