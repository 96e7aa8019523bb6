"""Configurations: frozen dataclasses that validate their values and convert to and from YAML, JSON and flags.

A field is one parameter everywhere: a command-line flag, a line of a YAML file, an `MLproject` parameter and an MLflow
parameter have its name, its default and its help text.

    from metaopt.core.config import Config, option

    class Training(Config):
        epochs: int = option(default=10, help="Epochs to train.", at_least=1)

    print(Training.from_mapping({"epochs": "3"}).to_json())
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, dataclass_transform

import yaml

from .errors import InvalidConfig
from .moved import warn_renamed
from .registry import suggest
from .text import shown

Options = Mapping[str, Any]
"""Keyword arguments of a plug-in: a mapping in YAML, or text such as `"hidden=64 widths=[16,32]"` in a flag."""


def option(
    *,
    default: Any,
    help: str,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a parameter of a configuration.

    Args:
        default: its value unless given.
        help: its help text, a sentence.
        above: exclusive lower bound of a number, and of each number of a range or a tuple.
        at_least: inclusive lower bound.
        below: exclusive upper bound.
        choices: the only valid values.
    """
    metadata = {"help": help, "above": above, "at_least": at_least, "below": below, "choices": choices}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


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


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
class Config:
    """Base class of all configurations. Subclasses become frozen dataclasses; `option` declares their fields."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """New names of renamed parameters by old name. `from_mapping` accepts the old ones with a DeprecationWarning."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        """Convert each value to its declared type and check its rule.

        Raises:
            InvalidConfig: a value that cannot be converted or breaks its rule; the message names both.
        """
        types_of = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = coerce(field.name, getattr(self, field.name), types_of[field.name])
            _check_rule(field.name, value, field.metadata)
            object.__setattr__(self, field.name, value)

    @classmethod
    def names(cls) -> list[str]:
        """Names of all parameters."""
        return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from names and values.

        Raises:
            InvalidConfig: an unknown name, or an invalid value.
        """
        known: dict[str, Any] = {}
        for name, value in values.items():
            if name in cls.renamed:
                warn_renamed(f"the parameter {shown(name)} of {cls.__name__}", repr(cls.renamed[name]))
            elif name not in cls.names():
                raise InvalidConfig(f"unknown parameter {shown(name)} for {cls.__name__}: {suggest(name, cls.names())}")
            known[cls.renamed.get(name, name)] = value
        return cls(**known)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON and YAML can store them; `from_mapping` restores an equal configuration."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The configuration as indented JSON."""
        return json.dumps(self.to_mapping(), indent=2) + "\n"


def read_config_file(path: Path) -> dict[str, Any]:
    """Read parameters from a YAML or JSON file.

    Raises:
        InvalidConfig: the file cannot be read, is not YAML, or contains something else than names with values.
    """
    try:
        values = read_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise InvalidConfig(f"{path} contains a {kind}; expected names with values, such as `epochs: 10`")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def coerce(name: str, value: Any, kind: Any) -> Any:
    """Convert a value from a flag, a file or Python to the declared type of a parameter.

    Raises:
        InvalidConfig: the value cannot be converted.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() in ("", "none", "null")):
            return None
        kind = next(member for member in typing.get_args(kind) if member is not types.NoneType)
    try:
        return _reader(kind)(value)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise InvalidConfig(f"{name} is {shown(value)}; expected {_type_name(kind)}") from error


def _reader(kind: Any) -> Callable[[Any], Any]:
    if typing.get_origin(kind) is tuple:
        return partial(_read_tuple, _READERS[typing.get_args(kind)[0]])
    return _READERS.get(typing.get_origin(kind) or kind, kind)


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(value)
    return int(float(value))


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _read_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _read_str(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple) or value is None:
        raise ValueError(value)
    return str(value)


def _read_tuple(read_part: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return ()
    if isinstance(value, str):
        value = value.strip("[]()").replace(",", " ").split()
    return tuple(read_part(part) for part in ([value] if isinstance(value, int | float) else value))


def _read_options(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if value is None or str(value).lower() in ("", "none"):
        return {}
    pairs = [part.partition("=") for part in str(value).split()]
    if any(not name or not separator for name, separator, _ in pairs):
        raise ValueError(value)
    return {name: read_value(text) for name, _, text in pairs}


class _Loader(yaml.SafeLoader):
    """YAML with 1e-3 as a number; in YAML 1.1 it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_value(text: str) -> Any:
    """Parse a YAML value; `1e-3` is a number."""
    return yaml.load(text, _Loader)


_READERS: dict[Any, Any] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_str,
    Range: Range.parse,
    typing.get_origin(Options): _read_options,
}


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.get_origin(Options):
        return 'names and values such as "hidden=64 depth=2"'
    if typing.get_origin(kind) is tuple:
        return "numbers such as 0.001,0.01" if float in typing.get_args(kind) else "whole numbers such as 16,32"
    return {int: "a whole number", float: "a number", bool: "true or false", Range: "a number or low:high"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )


def _check_rule(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    if rule.get("choices") and value not in rule["choices"]:
        raise InvalidConfig(f"{name} is {shown(value)}: {suggest(str(value), rule['choices'])}")
    bounds = (value.low, value.high) if isinstance(value, Range) else value if isinstance(value, tuple) else (value,)
    for number in (bound for bound in bounds if isinstance(bound, int | float)):
        if not math.isfinite(number):
            raise InvalidConfig(f"{name} is {value}; expected a finite number")
        if rule.get("above") is not None and number <= rule["above"]:
            raise InvalidConfig(f"{name} is {value}; expected more than {rule['above']}")
        if rule.get("at_least") is not None and number < rule["at_least"]:
            raise InvalidConfig(f"{name} is {value}; expected {rule['at_least']} or more")
        if rule.get("below") is not None and number >= rule["below"]:
            raise InvalidConfig(f"{name} is {value}; expected less than {rule['below']}")
    if isinstance(value, Range) and value.high < value.low:
        raise InvalidConfig(f"{name} is {value}; expected low:high with low ≤ high")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Range):
        return value.low if value.low == value.high else str(value)
    if isinstance(value, tuple):
        return list(value)
    return value


def default_text(field: dataclasses.Field[Any]) -> str:
    """A parameter's default as a user types it; `none` for None and for empty values."""
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is None or default in ({}, ()):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Mapping):
        return " ".join(f"{name}={value}" for name, value in default.items())
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default)


def is_switch(field: dataclasses.Field[Any]) -> bool:
    """Whether a parameter is boolean."""
    return isinstance(field.default, bool)
