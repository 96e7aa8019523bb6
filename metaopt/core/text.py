"""Plain text: numbers with nouns, aligned columns, tables, and values in messages."""

import reprlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

_LONGEST = 200  # of a value in a message [characters]
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 epoch`, `2 epochs`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of plain text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def printable(text: str) -> str:
    """Text that a terminal shows as it is: control characters are escaped, such as those that move the cursor."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def bytes_text(size: int) -> str:
    """A size in decimal units: `19.999 GB`."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "bytes"))
    return f"{size / unit:.4g} {name}"


def shown(value: Any) -> str:
    """A value as an error message shows it: its `repr`, shortened before it is made.

    Use it for each value that a user or a file gave: such values can be long, deep, or refer to themselves.

        shown("x" * 100_000)  # 'xxx…xxx', at most 200 characters
    """
    return shortened(_SHORT.repr(value))


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Text of at most `longest` characters, without its middle if it is longer."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def reason_of(error: BaseException) -> str:
    """The type and the message of an error of another library, on one line."""
    return f"{type(error).__name__}: {shortened(' '.join(str(error).split()))}"


class _Short(reprlib.Repr):
    """`repr` with limits that also hold for subclasses, for mappings of any kind and for long numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 3, 6, 8, 8, 8
        self.maxstring = self.maxother = _LONGEST // 2

    def repr1(self, x: Any, level: int) -> str:
        """Show built-in values and their subclasses with limits, other values by their own `repr`."""
        if isinstance(x, str | bytes | bytearray):
            ends = self.maxstring // 2
            return repr(x) if len(x) <= self.maxstring else f"{x[:ends]!r}…{x[-ends:]!r}"
        if isinstance(x, int) and x.bit_length() > 400:
            return f"a whole number of {x.bit_length():,} bits"
        if isinstance(x, Mapping):
            if level <= 0:
                return "{…}"
            pairs = [
                f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)
            ]
            return f"{{{', '.join([*pairs, '…'] if len(x) > self.maxdict else pairs)}}}"
        return super().repr1(x, level)


_SHORT = _Short()
