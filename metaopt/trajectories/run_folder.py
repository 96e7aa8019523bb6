"""The folder of a run: a name that is safe, one process at a time, nothing overwritten by accident."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.errors import InvalidConfig, RunNameError, StorageError

LOCK = ".lock"
_LONGEST = 100


def check_run_name(name: str) -> str:
    """A run name that can be a folder, unchanged.

    Raises:
        RunNameError: it could lead elsewhere, or is awkward on some file system or command line.
    """
    if (
        not 0 < len(name.encode(errors="replace")) <= _LONGEST
        or not name.isprintable()
        or name != name.strip()
        or name.startswith((".", "-"))
        or any(part in name for part in ("/", "\\", ".."))
    ):
        raise RunNameError(
            f"run name {name!r:.200} cannot be a folder: expected 1 to {_LONGEST} printable characters, without slash, "
            'backslash or "..", without spaces at the ends, not starting with "." or "-". Choose one such as "cnn-lr3"'
        )
    return name


@contextmanager
def claim_run_folder(folder: Path, owned: str, *, resume: bool = False, overwrite: bool = False) -> Iterator[Path]:
    """Keep the folder of a run to this process while the block runs; a killed process gives it back.

    Args:
        folder: made where missing. Whoever joins a run name to a folder calls `check_run_name` first: here
            "runs/../x" is "x".
        owned: which of its entries belong to this kind of run, as a pattern ("seed_*"). Others are never touched:
            both phases may use one run name.
        resume: go on with what is there.
        overwrite: remove what is there.
    Raises:
        RunNameError: the name is unfit, another process uses it, it is taken (and neither flag is given), or there
            is nothing to resume.
        InvalidConfig: both flags are given.
        StorageError: the folder cannot be made or emptied.
    """
    check_run_name(folder.name)
    if resume and overwrite:
        raise InvalidConfig("resume and overwrite are both given; resume keeps what is there, overwrite removes it")
    with _locked(folder):
        present = sorted(folder.glob(owned))
        if present and not (resume or overwrite):
            raise RunNameError(
                f"run name {folder.name!r} is taken: {folder} holds {len(present)} entries. Choose another run name, "
                "or give --resume to go on with it or --overwrite to replace it"
            )
        if resume and not present:
            raise RunNameError(f"nothing to resume in {folder}; check the run name, or start it without --resume")
        if overwrite:
            _remove(present)
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    existed = folder.exists()
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunNameError(
            f"run name {folder.name!r} is in use: another process writes to {folder}. Wait for it, or choose another "
            "run name"
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
    """Leave no folder behind for a run that wrote nothing, such as a mistyped name to resume."""
    if all(entry.name == LOCK for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _remove(entries: list[Path]) -> None:
    try:
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise StorageError(f"could not remove what is to be overwritten: {error}; remove it by hand") from error
