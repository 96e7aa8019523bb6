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
import shlex
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, dataclass_transform

from .errors import InvalidConfig, UntrustedCode
from .moved import warn_renamed
from .registry import suggest
from .text import reason_of, shown
from .values import Options as Options
from .values import Range as Range
from .values import check_rule, coerce
from .yaml_values import read_values_file


def option(
    *,
    default: Any,
    help: str,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    runs_code: Callable[[Any], bool] | None = None,
    changes_result: bool = True,
) -> Any:
    """Declare a parameter of a configuration.

    Args:
        default: its value unless given.
        help: its help text, a sentence.
        above: exclusive lower bound of a number, and of each number of a range or a tuple.
        at_least: inclusive lower bound.
        at_most: inclusive upper bound.
        below: exclusive upper bound.
        choices: the only valid values.
        runs_code: tells the values that let code run. A file may give them only if the user trusts it (decision 0024).
        changes_result: whether the result depends on it; not on where and how a command runs, such as its folders and
            its device. Only parameters that change the result are part of the digest of a configuration.
    """
    metadata = {
        "help": help, "above": above, "at_least": at_least, "at_most": at_most, "below": below, "choices": choices,
        "runs_code": runs_code, "changes_result": changes_result,
    }  # fmt: skip
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def trust_option() -> Any:
    """Declare the parameter `trust_config`, the user's permission that files name code to import."""
    return option(
        default=False,
        help="Import code that a file names (package.module:build in a configuration, mixture, case or trajectory); "
        "only for files that are your own.",
        runs_code=bool,
        changes_result=False,
    )


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
class Config:
    """Base class of all configurations. Subclasses become frozen dataclasses; `option` declares their fields."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """New names of renamed parameters by old name. `from_mapping` accepts the old ones with a DeprecationWarning."""

    absent: ClassVar[Mapping[str, str]] = {}
    """Why a parameter of other configurations cannot be given here, by its name."""

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
            check_rule(field.name, value, field.metadata)
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
        for name in cls.absent:
            if name in values:
                raise InvalidConfig(f"{name} cannot be given: {cls.absent[name]}")
        for name, value in values.items():
            if name in cls.renamed:
                warn_renamed(f"the parameter {shown(name)} of {cls.__name__}", repr(cls.renamed[name]))
            elif name not in cls.names():
                raise InvalidConfig(f"unknown parameter {shown(name)} for {cls.__name__}: {suggest(name, cls.names())}")
            new = cls.renamed.get(name, name)
            if new in known:
                raise InvalidConfig(f"{name} and another name of the same parameter are given; give {new} only")
            known[new] = value
        return cls(**known)

    @classmethod
    def from_file_values(cls, values: Mapping[str, Any], source: object, *, trusted: bool) -> Self:
        """Build a configuration from names and values that a file contains.

        Args:
            source: the file, for messages.
            trusted: whether the user permits the file to name code.
        Raises:
            UntrustedCode: a value lets code run, and the file is not trusted.
            InvalidConfig: an unknown name, or an invalid value.
        """
        if not trusted:
            cls.refuse_code(values, source)
        return cls.from_mapping(values)

    @classmethod
    def refuse_code(cls, values: Mapping[str, Any], source: object, flags: bool = False) -> None:
        """Raise if a value that a file contains lets code run: it may be the file of somebody else.

        Args:
            flags: whether the parameters are flags of the command, so that the user can give the value there.
        Raises:
            UntrustedCode: states the value and how to permit it.
            InvalidConfig: such a parameter has an invalid value.
        """
        types_of = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for given, value in values.items():
            name = cls.renamed.get(given, given)
            runs_code = fields[name].metadata["runs_code"] if name in fields else None
            if runs_code and runs_code(coerced := coerce(name, value, types_of[name])):
                raise untrusted_code(source, given, coerced, flags)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON and YAML can store them; `from_mapping` restores an equal configuration."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The configuration as indented JSON."""
        return json.dumps(self.to_mapping(), indent=2) + "\n"


def build_configured(kind: Any, values: Mapping[str, Any]) -> Any:
    """Build an object of a class that has a `Config`.

    Raises:
        InvalidConfig: an unknown name, an invalid value, or sizes beyond torch or the memory of this machine.
    """
    config = kind.Config.from_mapping(values)
    try:
        return kind(config)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise InvalidConfig(
            f"cannot build {kind.__name__} with {shown(config.to_mapping())} ({reason_of(error)}); give smaller sizes"
        ) from error


def read_config_file(path: Path) -> dict[str, Any]:
    """Read parameters from a YAML or JSON file.

    Pass the result to `Config.from_file_values`, which refuses names of code.

    Raises:
        InvalidConfig: the file cannot be read, is not YAML, or contains something else than names with values.
    """
    values = read_values_file(path)
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise InvalidConfig(f"{path} contains a {kind}; expected names with values, such as `epochs: 10`")
    return {name.replace("-", "_"): value for name, value in values.items()}


def untrusted_code(source: object, name: str, value: object, flags: bool = False) -> UntrustedCode:
    """The error that a file names code.

    Args:
        source: the file.
        name: the parameter that names code.
        value: its value.
        flags: whether the parameter is a flag of the command.
    """
    flag = f"--{name.replace('_', '-')}"
    typed = f"give {flag} {shlex.quote(value)} on the command line, or " if flags and isinstance(value, str) else ""
    return UntrustedCode(
        f"{source} sets {name} to {shown(value)}, and a file must not run code, because it may be somebody else's. If "
        f"you trust that code, {typed}give --trust-config true (in Python trust_config=True)"
    )


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
