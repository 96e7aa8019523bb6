"""Kills a process at a known moment: once it has written a file."""

import signal
import subprocess
import time
from collections.abc import Callable


def kill_once(process: subprocess.Popen, has_written: Callable[[], object]) -> None:
    """Kill a process (SIGKILL) once it has written something."""
    deadline = time.monotonic() + 600  # it imports for a while where other processes use the cores
    try:
        while not has_written():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
