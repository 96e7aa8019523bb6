"""Flags for the parameters of plug-ins: `--widths 16,32` is short for `--target-options widths=16,32`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from ..configuration import Config, read_value
from ..errors import UnknownName
from ..optimizers import OPTIMIZERS
from ..registry import Registry, suggest
from ..targets import TARGETS
from ..tasks import TASKS


class _Place(NamedTuple):
    """Where the parameters of a plug-in go, which parameter names it, and who knows it."""

    options: str
    chosen_by: str
    registry: Registry


_PLACES = (
    _Place("task_options", "task", TASKS),
    _Place("target_options", "target_model", TARGETS),
    _Place("optimizer_options", "optimizer_model", OPTIMIZERS),
)
"""A parameter that task and target both have is the task's: the target is told what the data is like."""


def with_plugin_flags(kind: type[Config], values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Add the flags that a command itself does not know to the options of the task, target or optimizer they fit.

    Args:
        kind: the command's configuration.
        values: its parameters so far.
        words: what was left on the command line (`["--widths", "16,32"]`).
    Raises:
        click.UsageError: a word that is no flag, or a flag that nothing knows; the message lists the nearest ones.
    """
    merged = dict(values)
    config = kind.from_mapping(values)
    places = [place for place in _PLACES if place.options in kind.names() and place.chosen_by in kind.names()]
    for flag, text in _flags(words):
        for place in places:
            known = _parameters(place.registry, getattr(config, place.chosen_by))
            if known is None or flag in known:
                options = merged.get(place.options) or getattr(config, place.options)
                merged[place.options] = {**options, flag: read_value(text) if known is None else text}
                break
        else:
            raise click.UsageError(f"unknown flag --{flag.replace('_', '-')}: {_nearest(flag, kind, config, places)}")
    return merged


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or word == "--":
            raise click.UsageError(f"unexpected {word!r} on the command line; expected a flag, such as --epochs 10")
        name, equals, value = word[2:].partition("=")
        if not equals:  # a flag without a value is a switch
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        yield name.replace("-", "_"), value


def _parameters(registry: Registry, name: str) -> list[str] | None:
    """The parameters of a plug-in; None where they are not known, as for networks of other packages."""
    if ":" in name:
        return None
    try:
        return registry.get(name).Config.names()
    except UnknownName:  # said better, and with the nearest names, by whoever builds it
        return None


def _nearest(flag: str, kind: type[Config], config: Config, places: Iterable[_Place]) -> str:
    known = list(kind.names())
    for place in places:
        known += _parameters(place.registry, getattr(config, place.chosen_by)) or []
    return suggest(f"--{flag.replace('_', '-')}", [f"--{name.replace('_', '-')}" for name in dict.fromkeys(known)])
