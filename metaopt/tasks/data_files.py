"""Data files: which files of a folder are read, what is ignored, and how a file is opened.

Only regular files are opened. Everything else in a folder is counted, and the counts are shown.
"""

import codecs
import io
import logging
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from ..core.errors import FileFormatError, TaskDataError
from ..core.text import counted
from ..weights.regular import opened

log = logging.getLogger(__name__)

_SYSTEM_NAMES = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)
"""Names in lower case that operating systems and network storage give to their own files and folders."""

_SYSTEM_FOLDERS = (Path("/proc"), Path("/sys"))  # regular files by their mode, but reading one may block or never end
_BYTE_ORDER_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

HIDDEN = "hidden or system file(s)"
HIDDEN_FOLDERS = "hidden or system folder(s)"
SPECIAL = "device(s), pipe(s) or socket(s)"
BROKEN_LINKS = "broken link(s)"
SECOND_LINKS = "link(s) to what is read already"
FOLDERS = "folder(s)"


@dataclass
class Found:
    """The files to read below a folder, and what is ignored there.

    Attributes:
        files: sorted by path.
        folders: the folders directly below it that were searched.
        ignored: number of ignored files and folders by reason, in which (s) is the plural.
        endings: number of files by ending, of those that are ignored for their ending.
        links: number of links that were followed out of the folder.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    links: int = 0

    def notes(self, name: str) -> list[str]:
        """What a user must know of the search, one line or none.

        Args:
            name: of the folder, in that line.
        """
        parts = [
            f"{count:,} {reason.replace('(s)', '' if count == 1 else 's')}"
            for reason, count in sorted(self.ignored.items())
        ]
        if self.endings:
            counts = ", ".join(f"{ending} {count:,}" for ending, count in self.endings.most_common(8))
            parts.append(f"{counted(self.endings.total(), 'file')} with other endings ({counts})")
        followed = [f"followed {counted(self.links, 'link')} out of it"] if self.links else []
        ignored = [f"ignored {', '.join(parts)}"] if parts else []
        return [f"{name}: {'; '.join(ignored + followed)}"] if ignored or followed else []


def find_files(folders: Sequence[Path], suffixes: Sequence[str], *, deep: bool = True) -> list[Found]:
    """Find the files with these endings in each folder and the folders in it.

        train, test = find_files([Path("data/train"), Path("data/test")], [".png", ".jpg"])

    Hidden and system files and folders are ignored at any depth. Links that lead out of all folders are followed; a
    link to something that is read anyway is ignored, so that no file is read twice and loops end.

    Args:
        suffixes: endings in lower case; files may have them in upper case.
        deep: whether to search the folders in it, too.
    Raises:
        TaskDataError: a folder cannot be read, or one of the folders is inside another.
    """
    read = {folder.resolve() for folder in folders}
    if len(read) < len(folders) or any(not read.isdisjoint(folder.parents) for folder in read):
        raise TaskDataError(f"{' and '.join(map(str, folders))} overlap; expected separate folders. Check their links")
    return [_search(folder, suffixes, deep, read) for folder in folders]


@contextmanager
def open_file(path: Path, expected: str) -> Iterator[BinaryIO]:
    """Open a regular file to read its bytes.

    Args:
        expected: what the file should be, for the message ("an image file").
    Raises:
        TaskDataError: the file is missing or unreadable, is a folder, a device, a pipe or a socket, or belongs to the
            system (/proc, /sys).
    """
    if _is_of_system(path):
        raise TaskDataError(f"cannot read {path}: it is a file of the system; expected {expected}. Check data_dir")
    try:
        with opened(path, expected) as (file, _):
            yield file
    except FileFormatError as error:
        raise TaskDataError(f"{error}. Check data_dir") from error


@contextmanager
def open_text(path: Path, expected: str) -> Iterator[TextIO]:
    """Open a text file in UTF-8, or in the encoding that its byte order mark states: UTF-8, UTF-16 or UTF-32.

    Line ends are kept. Reading raises UnicodeDecodeError where the bytes are not of that encoding.

    Raises:
        TaskDataError: as for `open_file`.
    """
    with open_file(path, expected) as file:
        start = file.peek(4)[:4]  # type: ignore[attr-defined]
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
        yield io.TextIOWrapper(file, encoding=encoding, newline="")


def report(notes: Sequence[str]) -> tuple[str, ...]:
    """Log what a user must know of the data, and return it."""
    for note in notes:
        log.warning("%s", note)
    return tuple(notes)


def _search(top: Path, suffixes: Sequence[str], deep: bool, read: set[Path]) -> Found:
    """Search one folder. `read` has the resolved paths of what is read; the links that are followed are added."""
    found = Found()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        for path, mode in _entries(folder):
            if reason := _reason_to_ignore(path, mode, deep, read):
                found.ignored[reason] += 1
                continue
            found.links += stat.S_ISLNK(mode)
            if path.is_dir():
                waiting.append(path)
                found.folders += [path] if folder == top else []
            elif path.suffix.lower() in suffixes:
                found.files.append(path)
            else:
                found.endings[path.suffix.lower() or "none"] += 1
    found.files.sort(key=Path.as_posix)
    return found


def _entries(folder: Path) -> list[tuple[Path, int]]:
    """What is in a folder, and its mode; that of a link itself."""
    try:
        return [(path, path.lstat().st_mode) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise TaskDataError(f"cannot read the folder {folder}: {error.strerror}. Check data_dir") from error


def _reason_to_ignore(path: Path, mode: int, deep: bool, read: set[Path]) -> str | None:
    if _is_hidden(path):
        return HIDDEN_FOLDERS if stat.S_ISDIR(mode) else HIDDEN
    if not stat.S_ISLNK(mode):
        return _unwanted(mode, deep)
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
        return BROKEN_LINKS
    if _is_read(target, stat.S_ISDIR(mode), read):
        return SECOND_LINKS
    if reason := _unwanted(mode, deep):
        return reason
    read.add(target)
    return None


def _unwanted(mode: int, deep: bool) -> str | None:
    if stat.S_ISDIR(mode):
        return None if deep else FOLDERS
    return None if stat.S_ISREG(mode) else SPECIAL


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


def _is_read(target: Path, is_folder: bool, read: set[Path]) -> bool:
    """Whether something is read already, lies in a folder that is read, or is a folder around one."""
    return not read.isdisjoint((target, *target.parents)) or (
        is_folder and any(target in each.parents for each in read)
    )


def _is_of_system(path: Path) -> bool:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a long name, a loop of links, a NUL character: cannot be opened
        return False
    return any(resolved.is_relative_to(folder) for folder in _SYSTEM_FOLDERS)
