"""Values of parameters: converted from the text of a flag, from a file or from Python to a declared type, and checked.

A value that cannot be converted raises `InvalidConfig` with the name of its parameter.
"""

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from .errors import InvalidConfig
from .registry import suggest
from .text import shown
from .yaml_values import read_value

Options = Mapping[str, Any]
"""Keyword arguments of a plug-in: a mapping in YAML, or text such as `"hidden=64 widths=[16,32]"` in a flag."""

_LARGEST = 2**63 - 1  # of a whole number: torch and SQLite have 64 bits


@dataclass(frozen=True)
class Range:
    """A positive value, or a range from which each run draws a value log-uniformly."""

    low: float
    high: float

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `0.001` or `"5e-4:3e-3"`."""
        if isinstance(value, Range):
            return cls(value.low, value.high)
        low, _, high = str(value).partition(":")
        return cls(float(low), float(high or low))

    def at(self, fraction: float) -> float:
        """The value at a fraction (0 to 1) between low and high on a log scale: low · (high / low)^fraction."""
        return self.low if self.low == self.high else self.low * (self.high / self.low) ** fraction

    def __str__(self) -> str:
        return repr(self.low) if self.low == self.high else f"{self.low!r}:{self.high!r}"


def are_counts(*values: Any) -> bool:
    """Whether all values are whole numbers of 1 or more."""
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)


def coerce(name: str, value: Any, kind: Any) -> Any:
    """Convert a value from a flag, a file or Python to the declared type of a parameter.

    Raises:
        InvalidConfig: the value cannot be converted.
    """
    some = without_none(kind)
    if some is not kind and (value is None or (isinstance(value, str) and value.lower() in ("", "none", "null"))):
        return None
    try:
        return _reader(some)(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"{name} is {shown(value)}; expected {_type_name(some)}") from error


def without_none(kind: Any) -> Any:
    """The type of the values of a parameter that are not None: `int` for `int | None`."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind
    return next(member for member in typing.get_args(kind) if member is not types.NoneType)


def _reader(kind: Any) -> Callable[[Any], Any]:
    if typing.get_origin(kind) is tuple:
        return partial(_read_tuple, _READERS[typing.get_args(kind)[0]])
    return _READERS.get(typing.get_origin(kind) or kind, kind)


def _read_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str):
        digits = value.strip().lstrip("+-").isdecimal()
        value = int(value) if digits else float(value)  # a float is exact up to 2^53 only
    number = int(value)
    if number != value:
        raise ValueError(value)
    return number


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _read_bool(value: Any) -> bool:
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word not in _SWITCH:
        raise ValueError(value)
    return _SWITCH[word]


def _read_str(value: Any) -> str:
    if not isinstance(value, str | int | Path) or isinstance(value, bool):  # 1.10 in YAML would become the text 1.1
        raise ValueError(value)
    text = str(value)
    if "\0" in text or not _encodable(text):
        raise ValueError(value)
    return text


def _read_path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_read_str(value))


def _encodable(text: str) -> bool:
    """Whether text can be written to a file: arguments that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_tuple(read_part: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return ()
    if isinstance(value, str):
        value = value.strip("[]()").replace(",", " ").split()
    return tuple(read_part(part) for part in ([value] if isinstance(value, int | float) else value))


def _read_options(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {_read_name(name): part for name, part in value.items()}
    if value is None or str(value).lower() in ("", "none"):
        return {}
    pairs = [part.partition("=") for part in str(value).split()]
    names = [name for name, separator, _ in pairs if separator]
    if len(names) < len(pairs) or len(set(names)) < len(names):
        raise ValueError(value)
    # None is null here: Python's help and documentation write it so, and YAML would read a text.
    return {_read_name(name): None if text == "None" else read_value(text) for name, _, text in pairs}


def _read_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return _read_str(value)


_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

_READERS: dict[Any, Any] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_str,
    Path: _read_path,
    Range: Range.parse,
    typing.get_origin(Options): _read_options,
}


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.get_origin(Options):
        return 'names and values such as "hidden=64 depth=2"'
    if typing.get_origin(kind) is tuple:
        return {
            float: "numbers such as 0.001,0.01",
            str: "names such as one,two",
        }.get(typing.get_args(kind)[0], "whole numbers such as 16,32")
    return {
        int: "a whole number",
        str: "a text (in a file in quotes)",
        Path: "a path",
        float: "a number",
        bool: "true or false",
        Range: "a number or low:high",
    }.get(kind, getattr(kind, "__name__", str(kind)))


def check_rule(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    """Check a converted value against the rule that `option` declares.

    Raises:
        InvalidConfig: the value breaks the rule.
    """
    if rule.get("choices") and value is not None and value not in rule["choices"]:
        raise InvalidConfig(f"{name} is {shown(value)}: {suggest(str(value), rule['choices'])}")
    bounds = (value.low, value.high) if isinstance(value, Range) else value if isinstance(value, tuple) else (value,)
    text = shown(value) if isinstance(value, tuple) else str(value)
    for number in (bound for bound in bounds if isinstance(bound, int | float)):
        if isinstance(number, int) and abs(number) > _LARGEST:
            raise InvalidConfig(f"{name} is {shown(number)}; expected a whole number of at most 64 bits")
        if not math.isfinite(number):
            raise InvalidConfig(f"{name} is {text}; expected a finite number")
        if rule.get("above") is not None and number <= rule["above"]:
            raise InvalidConfig(f"{name} is {text}; expected more than {rule['above']}")
        if rule.get("at_least") is not None and number < rule["at_least"]:
            raise InvalidConfig(f"{name} is {text}; expected {rule['at_least']} or more")
        if rule.get("at_most") is not None and number > rule["at_most"]:
            raise InvalidConfig(f"{name} is {text}; expected {rule['at_most']} or less")
        if rule.get("below") is not None and number >= rule["below"]:
            raise InvalidConfig(f"{name} is {text}; expected less than {rule['below']}")
    if isinstance(value, Range) and value.high < value.low:
        raise InvalidConfig(f"{name} is {text}; expected low:high with low ≤ high")
