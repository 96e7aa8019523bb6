"""Checkpoints that `--resume-from` has fetched from the tracking store: copies in the folder `.downloads`."""

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..core.errors import StorageError
from ..trajectories.run_folder import DOWNLOADS
from .retention import Record

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_STARTING = timedelta(days=1)
"""How long after its last use a training may still read a download: it does so when it starts."""


@dataclass(frozen=True)
class Download:
    """The files of one checkpoint, as a run in the store has them.

    Attributes:
        path: folder of the files, relative to that of the checkpoints: `.downloads/<run ID>/<name>`.
        size: of the files [bytes].
        used: when a training fetched it, or resumed from it again.
    """

    path: str
    size: int
    used: datetime

    @property
    def run_id(self) -> str:
        """The run that has it."""
        return Path(self.path).parts[-2]

    @property
    def name(self) -> str:
        """Name of its artifact folder, in `checkpoints`."""
        return Path(self.path).name

    def record(self, now: datetime, missing: Collection[str]) -> Record:
        """What the policy needs to know.

        Args:
            missing: paths of downloads that the store does not have.
        """
        needed = ""
        if self.path in missing:
            needed = "the tracking store does not have it: this may be the only copy"
        elif now - self.used < _STARTING:
            needed = "a training may read it: it was used within the last day"
        address = f"runs:/{self.run_id}/checkpoints/{self.name}"
        return Record(self.path, created=self.used, size=self.size, in_use=needed, copy_of=address)


def downloads(checkpoint_dir: Path) -> Iterator[Download]:
    """All downloads of a folder of checkpoints. What else is in `.downloads` is left alone, and so are links."""
    for folder in sorted((checkpoint_dir / DOWNLOADS).glob("*/*")):
        is_link = folder.is_symlink() or folder.parent.is_symlink() or folder.parents[1].is_symlink()
        if not is_link and folder.is_dir() and _RUN_ID.fullmatch(folder.parent.name):
            files = [path.lstat() for path in folder.rglob("*") if not path.is_dir()]
            used = max([folder.lstat().st_mtime, *(each.st_mtime for each in files)])
            path = folder.relative_to(checkpoint_dir).as_posix()
            yield Download(path, sum(each.st_size for each in files), datetime.fromtimestamp(used, UTC))


def not_stored(found: Collection[Download]) -> set[str]:
    """The paths of downloads that the tracking store does not have.

    Raises:
        TrackingError: it does not respond, so that nothing may be deleted.
    """
    from ..tracking import has_checkpoint  # MLflow takes seconds to import

    return {each.path for each in found if not has_checkpoint(each.run_id, each.name)}


def remove_download(checkpoint_dir: Path, path: str) -> bool:
    """Remove a download, unless a training has begun to use it meanwhile; returns whether it was removed.

    A kill in between leaves some of the files: whoever resumes from it fetches the others again.

    Raises:
        StorageError: a file cannot be removed.
    """
    current = next((each for each in downloads(checkpoint_dir) if each.path == path), None)
    if current is None or current.record(datetime.now(UTC), ()).in_use:
        return False
    folder = checkpoint_dir / path
    try:
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    except OSError as error:
        raise StorageError(f"could not remove {folder}: {error}; make it writable, then run again") from error
    return True
