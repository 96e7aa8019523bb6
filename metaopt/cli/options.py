"""Turns a configuration class into a click command: a flag for each field, and a file for all of them."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ..core.config import Config, default_text, is_switch, read_config_file, read_value
from ..core.errors import UnknownName
from ..core.registry import Registry, suggest
from ..generative import GENERATIVE_OPTIMIZERS
from ..targets import TARGETS
from ..tasks import TASKS
from .output import Result, show

C = TypeVar("C", bound=Config)
R = TypeVar("R")

EVERYWHERE = "The flags of `metaopt --help` (--quiet, --json, --debug) may stand here, too."


def config_command(
    name: str, summary: str, kind: type[C], workflow: Callable[[C], R], shown: Callable[[R, C], Result]
) -> click.Command:
    """Make a command of a workflow.

    Flags win over the file that `--config` names, which wins over defaults. Both spellings of a flag work
    (`--run-name`, `--run_name`), because `mlflow run` passes parameters that it does not know with underscores. Flags
    that the configuration does not have go to the plug-ins that it names.

    Args:
        summary: the help text.
        kind: the configuration; each of its fields becomes a flag.
        shown: turns what the workflow returned into what is printed.
    """

    def callback(config: Path | None, **flags: Any) -> None:
        context = click.get_current_context()
        values = read_config_file(config) if config else {}
        given = {
            flag: value
            for flag, value in flags.items()
            if context.get_parameter_source(flag) is not ParameterSource.DEFAULT
        }
        settings = kind.from_mapping(with_plugin_flags(kind, {**values, **given}, context.args))
        with redirect_stdout(sys.stderr):  # what libraries print is not the result
            returned = workflow(settings)
        show(shown(returned, settings), name)

    return click.Command(
        name,
        callback=callback,
        help=summary,
        epilog=EVERYWHERE,
        params=[*map(_flag, dataclasses.fields(kind)), _config_flag()],  # type: ignore[arg-type]
        context_settings={
            "token_normalize_func": lambda token: token.replace("_", "-"),
            "show_default": True,
            "ignore_unknown_options": True,
            "allow_extra_args": True,
        },
    )


def without_defaults(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Leave out each flag that is followed by its default; everything else stays as it is."""
    defaults = {flag: parameter.default for parameter in command.params for flag in parameter.opts}
    defaults["--config"] = "none"
    kept: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if waiting and waiting[0] == defaults.get(argument.replace("_", "-")):
            waiting.pop(0)
        else:
            kept.append(argument)
    return kept


def _flag(field: dataclasses.Field[Any]) -> click.Option:
    switch = {"is_flag": False, "flag_value": "true", "metavar": "[true|false]"} if is_switch(field) else {}
    choices = field.metadata["choices"]
    return click.Option(
        [f"--{field.name.replace('_', '-')}", field.name],
        default=default_text(field),
        help=field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else ""),
        **switch,  # type: ignore[arg-type]
    )


def _config_flag() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        help="YAML or JSON file with any of these parameters; flags win over it.",
    )


class _Place(NamedTuple):
    """Where the parameters of a plug-in go, which parameter names it, and who knows it."""

    options: str
    chosen_by: str
    registry: Registry


_PLACES = (
    _Place("task_options", "task", TASKS),
    _Place("target_options", "target_model", TARGETS),
    _Place("optimizer_options", "optimizer_model", GENERATIVE_OPTIMIZERS),
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
        if flag in kind.renamed:
            merged[flag] = text
            continue
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
