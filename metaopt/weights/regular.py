"""Opens files that somebody else may have prepared: regular files only, and texts of limited size."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..core.errors import FileFormatError

MAX_TEXT = 32 * 2**20
"""Largest JSON text or header that is read [bytes]."""

_AT_ONCE = 2**20  # of a file in memory [bytes]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


@contextmanager
def opened(path: Path, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, or a link to one, to read bytes.

    Args:
        expected: the expected file, for messages ("a safetensors file").
    Yields: the file and its size [bytes].
    Raises:
        FileFormatError: the file cannot be opened, or is a folder, a device, a pipe or a socket.
    """
    try:
        _check_regular(path, path.stat(), expected)  # opening a device can have effects of its own
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe must not wait
    except FileFormatError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"cannot read {path}: {reason}; expected {expected}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_regular(path, status, expected)  # it may have been exchanged in between
        yield file, status.st_size


def sha256_of_file(path: Path, expected: str) -> str:
    """The sha256 of a regular file, in hexadecimal digits.

    Args:
        expected: what the file should be, for messages.
    Raises:
        FileFormatError: it is missing or no regular file.
    """
    sha = hashlib.sha256()
    with opened(path, expected) as (file, _):
        while part := file.read(_AT_ONCE):
            sha.update(part)
    return sha.hexdigest()


def read_text(path: Path, expected: str, limit: int = MAX_TEXT) -> str:
    """Read a text file of UTF-8.

    Raises:
        FileFormatError: as for `opened`; or the file is larger than `limit` [bytes] or not UTF-8.
    """
    with opened(path, expected) as (file, size):
        if size > limit:
            raise FileFormatError(f"{path} has {size:,} bytes; expected {expected} of at most {limit:,} bytes")
        try:
            return file.read(limit).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"cannot read {path}: {error}; expected {expected}") from error


def _check_regular(path: Path, status: os.stat_result, expected: str) -> None:
    kind = next((name for matches, name in _KINDS if matches(status.st_mode)), None)
    if kind:
        raise FileFormatError(f"cannot read {path}: it is {kind}; expected {expected}")
