"""Reading of a JSON object per line, from a file of any size, within bounds: one line is in memory at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...core.text import shown
from ...weights.regular import opened
from ...weights.safetensors_header import without_duplicates

MAX_LINE = 32 * 2**20
"""Longest line that is read [bytes]."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: counted from 1.
        value: the JSON object; None if there is none.
        problem: what is wrong with the line, and what to do; None if nothing.
    """

    number: int
    value: dict[str, Any] | None
    problem: str | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, of which each must be a JSON object in UTF-8; the last may lack its end.

    Raises:
        FileFormatError: the file cannot be opened or is not regular.
    """
    with opened(path, "a file with a JSON object per line") as (file, _):
        for number, raw in enumerate(_raw_lines(file), 1):
            yield _line(number, raw)


def _raw_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines without their ends; None for one that is too long, which is skipped."""
    while raw := file.readline(MAX_LINE + 1):
        if len(raw) > MAX_LINE and not raw.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield raw


def _line(number: int, raw: bytes | None) -> Line:
    if raw is None:
        return Line(number, None, f"it is longer than {MAX_LINE:,} bytes; write one object per line, or leave it out")
    if not raw.strip():
        return Line(number, None, "it is empty; expected a JSON object on each line")
    if number == 1 and raw.startswith(_BYTE_ORDER_MARK):
        return Line(number, None, "it begins with a byte order mark; save the file as UTF-8 without one")
    if b"\0" in raw:
        return Line(number, None, "it contains NUL bytes; expected text in UTF-8. Write the file again")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return Line(number, None, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"it is not JSON ({shown(error)}); expected one JSON object")
    if not isinstance(value, dict):
        return Line(number, None, f"it is a JSON {type(value).__name__}; expected an object")
    return Line(number, value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
