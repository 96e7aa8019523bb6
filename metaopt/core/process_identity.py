"""The identity of a process: tells whether the process that wrote something still runs."""

import os
from pathlib import Path


def this_process() -> str | None:
    """Identify this process by its number, its start time and its machine since the last boot.

    Returns: a text for `is_gone`; None on systems without /proc.
    """
    return process_of(os.getpid())


def process_of(pid: int) -> str | None:
    """Identify a process of this machine by its number; None if it has ended."""
    start, machine = _start_time(pid), _machine()
    return None if start is None or machine is None else f"{pid} {start} {machine}"


def is_gone(identity: str) -> bool:
    """Whether a process has certainly ended. False for processes of another machine or container.

    Args:
        identity: from `this_process`.
    """
    pid, _, rest = identity.partition(" ")
    start, _, machine = rest.partition(" ")
    return pid.isdecimal() and bool(machine) and machine == _machine() and _start_time(int(pid)) != start


def _start_time(pid: int) -> str | None:
    """Start of a process [clock ticks since boot]; None if it has ended or does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]  # fields 3 and 22 of proc(5); the second may contain spaces
    return None if state in "ZX" else start


def _machine() -> str | None:
    """The running kernel and the namespace of process numbers, which each container has for itself."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
