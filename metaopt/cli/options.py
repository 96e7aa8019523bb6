"""Builds click commands from configurations: a flag for each field, and `--config` for a file with all of them."""

import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ..core.config import Config, read_config_file
from ..core.errors import MetaoptError, UnknownName
from ..core.registry import Registry, suggest
from ..core.text import shown
from ..core.values import coerce
from ..core.yaml_values import read_value
from .flags import config_flags
from .output import Result, show

C = TypeVar("C", bound=Config)
R = TypeVar("R")

EPILOG = "The flags of `metaopt --help` (--quiet, --json, --debug) are accepted here too."


def config_command(
    name: str,
    summary: str,
    kind: type[C],
    workflow: Callable[[C], R],
    to_result: Callable[[R, C], Result],
    argument: str | None = None,
) -> click.Command:
    """Make the command of a workflow.

    Flags override the file of `--config`, which overrides the defaults. Both spellings of a flag work (`--run-name`,
    `--run_name`), because `mlflow run` passes unknown parameters with underscores. Flags that are no field of the
    configuration are options of the task, target or optimizer that it names.

    Args:
        summary: help text of the command.
        kind: the configuration; each field becomes a flag.
        to_result: converts the returned value of the workflow for output.
        argument: field that can also be given as the first word, without its flag; as several words, if it is a tuple.
    """

    def callback(config: str | None, **flags: Any) -> None:
        with _described_refusals(), redirect_stdout(sys.stderr):  # libraries print to stdout, which is for the result
            settings = _settings(kind, argument, config, flags)
            returned = workflow(settings)
        show(to_result(returned, settings), name)

    return _command(name, summary, kind, argument, callback)


def parsed_config(name: str, kind: type[C], words: Sequence[str], argument: str | None = None) -> C:
    """The configuration that the flags of a command give, as the command itself would understand them.

    Args:
        name: of the command, for messages.
        words: its command line.
        argument: as for `config_command`.
    Raises:
        click.UsageError: the flags are not understood.
        InvalidConfig: an invalid value.
    """

    def callback(config: str | None, **flags: Any) -> C:
        return _settings(kind, argument, config, flags)

    settings: C = _command(name, "", kind, argument, callback).main([*words], name, standalone_mode=False)
    return settings


def _settings(kind: type[C], argument: str | None, file: str | None, flags: Mapping[str, Any]) -> C:
    """The configuration of the command that click is calling."""
    context = click.get_current_context()
    given = {
        flag: value
        for flag, value in flags.items()
        if context.get_parameter_source(flag) is not ParameterSource.DEFAULT
    }
    words = list(context.args)
    if argument:
        given |= _leading(kind, argument, words)
    values = {**_file_values(kind, coerce("config", file, Path | None), given, words), **given}
    return kind.from_mapping(with_plugin_flags(kind, values, words))


def _command(
    name: str, summary: str, kind: type[Config], argument: str | None, callback: Callable[..., Any]
) -> click.Command:
    return click.Command(
        name,
        callback=callback,
        help=summary,
        epilog=EPILOG,
        options_metavar=f"[{_metavar(kind, argument)}] [OPTIONS]" if argument else "[OPTIONS]",
        params=list(config_flags(kind)),
        context_settings={
            "token_normalize_func": lambda token: token.replace("_", "-"),
            "show_default": True,
            "max_content_width": 110,
            "ignore_unknown_options": True,
            "allow_extra_args": True,
        },
    )


def _is_tuple(kind: type[Config], field: str) -> bool:
    return typing.get_origin(typing.get_type_hints(kind)[field]) is tuple


def _metavar(kind: type[Config], argument: str) -> str:
    return f"{argument.upper().removesuffix('S')}…" if _is_tuple(kind, argument) else argument.upper()


def _leading(kind: type[Config], argument: str, words: list[str]) -> dict[str, Any]:
    """The value of a field from the first words, which are removed: one word, or all before a flag for a tuple."""
    found = list(takewhile(lambda word: not word.startswith("-"), words))[: None if _is_tuple(kind, argument) else 1]
    del words[: len(found)]
    return {argument: tuple(found) if _is_tuple(kind, argument) else found[0]} if found else {}


@contextmanager
def _described_refusals() -> Iterator[None]:
    """Leave the reason of a refusal in the run that `mlflow run` started; other refused commands have no run."""
    try:
        yield
    except MetaoptError as error:
        if "MLFLOW_RUN_ID" in os.environ:
            from ..tracking import describe_refusal  # MLflow takes seconds to import

            describe_refusal(error)
        raise


def _file_values(
    kind: type[Config], path: Path | None, given: Mapping[str, Any], words: Sequence[str]
) -> dict[str, Any]:
    """The parameters in the file of `--config` that no flag overrides; names of code only if the user trusts them.

    Args:
        given: flags that are parameters, with their values.
        words: the rest of the command line, which may contain old names of parameters.
    """
    if path is None:
        return {}
    flags = {kind.renamed.get(name, name): value for name, value in (*_flags(words), *given.items())}
    values = {
        name: value for name, value in read_config_file(path).items() if kind.renamed.get(name, name) not in flags
    }
    if not coerce("trust_config", flags.get("trust_config", False), bool):
        kind.refuse_code(values, path, flags=True)
    return values


def without_defaults(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Drop each flag whose value is its default."""
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


class _PlugIn(NamedTuple):
    """Two parameters of a command, the name of a plug-in and its options, with the place of the registry of such names.

    Registries import torch, which takes seconds, so they are imported for commands that have plug-ins.
    """

    options: str
    name: str
    module: str
    table: str

    @property
    def registry(self) -> Registry:
        """The names."""
        registry: Registry = getattr(import_module(self.module, __package__), self.table)
        return registry


_PLUG_INS = (
    _PlugIn("task_options", "task", "..tasks", "TASKS"),
    _PlugIn("target_options", "target_model", "..targets", "TARGETS"),
    _PlugIn("optimizer_options", "optimizer_model", "..generative", "GENERATIVE_OPTIMIZERS"),
)
"""In order of precedence: an option of both task and target, such as a size of the data, is the task's."""


def with_plugin_flags(kind: type[Config], values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Add unknown flags of a command to the options of the task, target or optimizer that has them.

    Args:
        kind: configuration of the command.
        values: its parameters by name.
        words: the rest of the command line (`["--widths", "16,32"]`).
    Raises:
        click.UsageError: a word that is no flag, or an unknown flag; the message lists the nearest flags.
    """
    merged = dict(values)
    config = kind.from_mapping(values)
    plug_ins = [each for each in _PLUG_INS if {each.options, each.name} <= set(kind.names())]
    added: dict[str, dict[str, Any]] = {plug_in.options: {} for plug_in in plug_ins}
    for flag, text in _flags(words):
        if flag in kind.renamed or flag in kind.absent:
            merged[flag] = text
            continue
        for plug_in in plug_ins:
            known = _parameters(plug_in.registry, getattr(config, plug_in.name))
            if known is None or flag in known:
                added[plug_in.options][flag] = read_value(text) if known is None else text
                break
        else:
            raise click.UsageError(f"unknown flag --{flag.replace('_', '-')}: {_nearest(flag, kind, config, plug_ins)}")
    return merged | {name: {**getattr(config, name), **options} for name, options in added.items() if options}


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or word == "--":
            raise click.UsageError(
                f"unexpected {shown(word)} on the command line; expected a flag, such as --epochs 10"
            )
        name, equals, value = word[2:].partition("=")
        if not equals:  # a flag without a value is boolean
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        yield name.replace("-", "_"), value


def _parameters(registry: Registry, name: str) -> list[str] | None:
    """Names of a plug-in's parameters; None for networks of other packages, whose parameters are unknown."""
    if ":" in name:
        return None
    try:
        return registry.get(name).Config.names()
    except UnknownName:  # building it raises the error with the nearest names
        return None


def _nearest(flag: str, kind: type[Config], config: Config, plug_ins: Iterable[_PlugIn]) -> str:
    known = list(kind.names())
    for plug_in in plug_ins:
        known += _parameters(plug_in.registry, getattr(config, plug_in.name)) or []
    return suggest(f"--{flag.replace('_', '-')}", [f"--{name.replace('_', '-')}" for name in dict.fromkeys(known)])
