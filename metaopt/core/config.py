"""Configurations: frozen dataclasses that check themselves and survive YAML, JSON and the command line.

One field is one parameter everywhere: a command-line flag, a line in a YAML file, an `MLproject` parameter and
an MLflow parameter carry its name, its default and its help text.
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

Options = Mapping[str, Any]
"""Keyword arguments for a plug-in, as a mapping in YAML or as `"hidden=64 widths=[16,32]"` on the command line."""


def option(
    *,
    default: Any,
    help: str,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one parameter: its default, its help text and the rule that its value must keep."""
    metadata = {"help": help, "above": above, "at_least": at_least, "below": below, "choices": choices}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Range:
    """A positive value, or a range from which each run draws one (log-uniformly)."""

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
        """The value that lies at a fraction (0 to 1) of the way from low to high on a log scale."""
        return self.low if self.low == self.high else self.low * (self.high / self.low) ** fraction

    def __str__(self) -> str:
        return repr(self.low) if self.low == self.high else f"{self.low!r}:{self.high!r}"


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
class Config:
    """Base of every configuration. Subclasses are frozen dataclasses whose fields are made by `option`."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Present names of parameters by their old ones, which are still read, with a DeprecationWarning."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        """Turn every value into its declared type and check its rule.

        Raises:
            InvalidConfig: names the field, the value, the rule.
        """
        types_of = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = coerce(field.name, getattr(self, field.name), types_of[field.name])
            _check_rule(field.name, value, field.metadata)
            object.__setattr__(self, field.name, value)

    @classmethod
    def names(cls) -> list[str]:
        """The names of all parameters."""
        return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values.

        Raises:
            InvalidConfig: a name that is no parameter, or a value that breaks a rule.
        """
        present: dict[str, Any] = {}
        for name, value in values.items():
            if name in cls.renamed:
                warn_renamed(f"the parameter {name!r} of {cls.__name__}", repr(cls.renamed[name]))
            elif name not in cls.names():
                raise InvalidConfig(f"unknown parameter {name!r} for {cls.__name__}: {suggest(name, cls.names())}")
            present[cls.renamed.get(name, name)] = value
        return cls(**present)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for JSON or YAML; `from_mapping` gives an equal configuration back."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The configuration as readable JSON."""
        return json.dumps(self.to_mapping(), indent=2) + "\n"


def read_config_file(path: Path) -> dict[str, Any]:
    """Read parameters from a YAML or JSON file (JSON is YAML).

    Raises:
        InvalidConfig: the file is missing, is not YAML, or is not a mapping of names to values.
    """
    try:
        values = read_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise InvalidConfig(f"{path} holds {type(values).__name__}; expected names and values, such as `epochs: 10`")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def coerce(name: str, value: Any, kind: Any) -> Any:
    """Turn a value from a flag, a file or Python into the type that a parameter declares.

    Raises:
        InvalidConfig: it cannot be read as that type.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() in ("", "none", "null")):
            return None
        kind = next(member for member in typing.get_args(kind) if member is not types.NoneType)
    try:
        return _reader(kind)(value)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise InvalidConfig(f"{name} is {value!r}; expected {_type_name(kind)}") from error


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
    """YAML in which 1e-3 is a number; YAML 1.1 takes it for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_value(text: str) -> Any:
    """A value as YAML reads it, with numbers such as 1e-3."""
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
        raise InvalidConfig(f"{name} is {value!r}: {suggest(str(value), rule['choices'])}")
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
    """A parameter's default as a user would type it; `none` for nothing."""
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
    """Whether a parameter is true or false."""
    return isinstance(field.default, bool)
