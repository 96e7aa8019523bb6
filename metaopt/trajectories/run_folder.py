"""Run folders: checked names, a lock for one process, and protection from accidental overwriting."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.errors import InvalidConfig, RunNameError, StorageError
from ..core.text import shown
from .ledger_entry import described_by, remove_checkpoint

LOCK = ".lock"
DOWNLOADS = ".downloads"
"""Folder in that of all checkpoints, with those that were fetched from the tracking store to resume from."""

_LONGEST = 100


def check_run_name(name: str) -> str:
    """Return a run name unchanged if it can be the name of a folder.

    Raises:
        RunNameError: the name could leave its folder, or is unsafe on a file system or command line.
    """
    if (
        not 0 < len(name.encode(errors="replace")) <= _LONGEST
        or not name.isprintable()
        or name != name.strip()
        or name.startswith((".", "-"))
        or any(part in name for part in ("/", "\\", ".."))
    ):
        raise RunNameError(
            f"run name {shown(name)} cannot be a folder: expected 1 to {_LONGEST} printable characters, without slash, "
            'backslash or "..", without spaces at the ends, not starting with "." or "-". Choose one such as "cnn-lr3"'
        )
    return name


@dataclass(frozen=True)
class ClaimedFolder:
    """The folder of a run, which this process has locked.

    Attributes:
        path: the folder.
        replaced: entries of an earlier run that this one overwrites.
    """

    path: Path
    replaced: tuple[Path, ...]

    def clear(self) -> None:
        """Remove what is overwritten: call it when nothing can refuse the run any more, and before the run writes.

        Raises:
            StorageError: an entry cannot be removed.
        """
        _remove(self.replaced)


@contextmanager
def claim_run_folder(
    folder: Path, owned: str, *, resume: bool = False, overwrite: bool = False, resume_flag: str = "--resume"
) -> Iterator[ClaimedFolder]:
    """Lock the folder of a run for this process during the block; a killed process releases it.

    Temporary files that a killed process left are removed. Entries to overwrite stay until `ClaimedFolder.clear`.

    Args:
        folder: created if missing. Call `check_run_name` before joining a run name to a path: here "runs/../x" is "x".
        owned: glob pattern of the entries that belong to this kind of run ("seed_*"). Others are never changed, because
            both phases may use one run name.
        resume: keep existing entries.
        overwrite: existing entries are to be replaced.
        resume_flag: the flag of the command that resumes, for messages.
    Raises:
        RunNameError: the name is invalid, in use by another process or taken (without a flag), or there is nothing to
            resume.
        InvalidConfig: both flags are given.
        StorageError: the folder cannot be created.
    """
    check_run_name(folder.name)
    if resume and overwrite:
        raise InvalidConfig(
            "resume and overwrite are both given; give resume to keep the existing files, or overwrite to remove them"
        )
    with locked(folder):
        present = sorted(path for path in folder.glob(owned) if described_by(path) is None)
        if present and not (resume or overwrite):
            raise RunNameError(
                f"run name {shown(folder.name)} is taken: {folder} holds {len(present)} entries. Choose another run "
                f"name, or give {resume_flag} to continue it or --overwrite to replace it"
            )
        if resume and not present:
            raise RunNameError(f"nothing to resume in {folder}; check the run name, or start it without --resume")
        _remove_unfinished(folder, owned)
        yield ClaimedFolder(folder, tuple(present) if overwrite else ())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process during the block.

    Raises:
        RunNameError: another process has locked it.
        StorageError: it cannot be created.
    """
    existed = folder.exists()
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunNameError(
            f"run name {shown(folder.name)} is in use: another process writes to {folder}. Wait until it ends, or "
            "choose another run name"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot use the folder {folder}: {error}; choose another one") from error
    try:
        yield
    finally:
        lock.release()
        if not existed:
            _remove_if_unused(folder)


def _remove_if_unused(folder: Path) -> None:
    """Remove a folder that was created only for the lock, such as that of a mistyped name to resume."""
    if all(entry.name == LOCK for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folder: Path, owned: str) -> None:
    """Remove the temporary files of killed processes, and the sidecars of checkpoints that they did not complete.

    Only the holder of the lock writes here.
    """
    for path in folder.glob(owned):
        checkpoint = described_by(path)
        if checkpoint is not None and not checkpoint.exists():
            with suppress(OSError):
                path.unlink()
    for path in [*folder.glob(".*.part"), *folder.glob(f"{owned}/.*.part")]:
        with suppress(OSError):
            path.unlink()


def _remove(entries: Iterable[Path]) -> None:
    try:
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                remove_checkpoint(entry)
    except OSError as error:
        raise StorageError(f"could not remove files that --overwrite replaces: {error}; remove them by hand") from error
