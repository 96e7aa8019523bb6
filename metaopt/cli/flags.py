"""The flags of a command: one for each field of its configuration, with its type and its rule in the help.

The values stay text: the configuration converts them as it does those of files, with the same messages.
"""

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..core.config import Config, Options, Range, default_text, is_switch
from ..core.values import without_none


def config_flags(kind: type[Config]) -> Sequence[click.Parameter]:
    """The flags of all fields of a configuration, and `--config`."""
    types_of = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    file = click.Option(
        ["--config"],
        metavar="PATH",
        help="YAML or JSON file with any of these parameters; flags override it.",
    )
    return [*(_flag(field, types_of[field.name]) for field in fields), file]


def _flag(field: dataclasses.Field[Any], kind: Any) -> click.Option:
    switch = {"is_flag": False, "flag_value": "true"} if is_switch(field) else {}
    return click.Option(
        [f"--{field.name.replace('_', '-')}", field.name],
        type=_shown_type(kind, field.metadata),
        metavar=_metavar(kind, field.metadata),
        default=default_text(field),
        help=field.metadata["help"],
        **switch,  # type: ignore[arg-type]
    )


def _shown_type(kind: Any, rule: Any) -> click.ParamType:
    """A type whose name and bounds click shows; it converts nothing."""
    kind = without_none(kind)
    low, high = rule["above"] if rule["at_least"] is None else rule["at_least"], rule["below"] or rule["at_most"]
    if kind not in (int, float) or (low is None and high is None):
        return click.STRING
    bounds = {"min": low, "min_open": rule["at_least"] is None, "max": high, "max_open": rule["below"] is not None}
    return _IntegerText(**bounds) if kind is int else _NumberText(**bounds)


def _metavar(kind: Any, rule: Any) -> str:
    kind = without_none(kind)
    if rule["choices"]:
        return f"[{'|'.join(rule['choices'])}]"
    if typing.get_origin(kind) is tuple:
        return f"{_METAVARS[typing.get_args(kind)[0]]},…"
    return _METAVARS.get(typing.get_origin(kind) or kind, "TEXT")


_METAVARS = {
    bool: "[true|false]",
    int: "INTEGER",
    float: "FLOAT",
    str: "TEXT",
    Path: "PATH",
    Range: "FLOAT|LOW:HIGH",
    typing.get_origin(Options): "NAME=VALUE…",
}


class _IntegerText(click.IntRange):
    """Text that the configuration converts to a whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


class _NumberText(click.FloatRange):
    """Text that the configuration converts to a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value
