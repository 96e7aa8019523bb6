"""What trainings take on the disk."""

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from .views import DiskView, FolderView

_LIMIT = 10.0  # for all folders together [s]
_MOST = 24  # folders [count]


def folders_to_measure(working: Iterable[str], trajectories: Path, checkpoints: Path) -> list[Path]:
    """The folders of trainings, in all working folders of jobs that this machine has, each once.

    Args:
        working: working folders.
        trajectories: folder in each.
        checkpoints: folder in each.
    """
    wanted = (Path(folder, part) for folder in working for part in (trajectories, checkpoints, "mlruns"))
    found: dict[Path, Path] = {}
    for path in dict.fromkeys(wanted):
        if path.is_dir():
            found.setdefault(path.resolve(), path)  # jobs name the folder of the dashboard by its whole path
    return [*found.values()][:_MOST]


def measure(folders: Iterable[Path], own: Path) -> DiskView:
    """Count the files of folders, for ten seconds at most, and look at the disk.

    Args:
        folders: to count.
        own: a folder on the disk whose free space is asked for.
    """
    end = time.monotonic() + _LIMIT
    usage = shutil.disk_usage(own)
    return DiskView(
        folders=[_measured(folder, end) for folder in folders],
        free=usage.free,
        total=usage.total,
        measured=time.time(),
    )


def _measured(folder: Path, end: float) -> FolderView:
    size = files = 0
    is_whole = True
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (three times as fast)
            except OSError:  # deleted in the meantime
                continue
            files += 1
        if time.monotonic() > end:
            is_whole = False
            break
    return FolderView(name=folder.name, path=str(folder), size=size, files=files, is_whole=is_whole)
