"""The end of a job's log file."""

import os
import re
from pathlib import Path

from ...core.errors import FileFormatError
from ...weights.regular import opened
from ..jobs import Job
from .views import LogView

_LONGEST = 256 * 1024  # of what is read [bytes]
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def log_tail(job: Job, lines: int) -> LogView:
    """The last lines of the log of a job's last attempt. Its path comes from the queue, never from a client.

    Args:
        lines: how many [count].
    """
    if job.log is None:
        return LogView(text="", is_whole=True, problem="no attempt has written a log yet")
    try:
        with opened(Path(job.log), "the log of a job") as (file, size):
            file.seek(max(size - _LONGEST, 0), os.SEEK_SET)
            data = file.read(_LONGEST)
    except (FileFormatError, OSError) as error:
        where = f" on {job.owner.host}" if job.owner else ""
        return LogView(text="", is_whole=True, problem=f"{error}; the attempt ran{where}")
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    kept = _CONTROLS.sub("", text).splitlines()
    if size > len(data):
        kept = kept[1:]  # the first line is cut off
    return LogView(text="\n".join(kept[-lines:]), is_whole=size <= len(data) and len(kept) <= lines, problem="")
