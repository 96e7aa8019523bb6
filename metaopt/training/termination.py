"""How a process that is asked to end does so: by an exception, so that what is open is closed and recorded."""

import signal
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended."""


def terminate(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM.

    Raises:
        SystemExit: always.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher may send it twice; recording the end takes a moment
    raise SystemExit(TERMINATED)
