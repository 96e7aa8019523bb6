"""Turns a configuration class into a click command: a flag for each field, and a file for all of them."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ..configuration import Config, default_text, is_switch, read_config_file
from .plugin_flags import with_plugin_flags
from .results import Result, show

C = TypeVar("C", bound=Config)

EVERYWHERE = "The flags of `metaopt --help` (--quiet, --json, --debug) may stand here, too."


def config_command(kind: type[C], name: str) -> Callable[[Callable[[C], Result]], click.Command]:
    """Make a command of a function from a configuration to a result; its docstring is the help text.

    Flags win over the file that `--config` names, which wins over defaults. Both spellings of a flag work
    (`--run-name`, `--run_name`), because `mlflow run` passes parameters that it does not know with underscores. Flags
    that the configuration does not have go to the plug-ins that it names.
    """

    def decorate(function: Callable[[C], Result]) -> click.Command:
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
                result = function(settings)
            show(result, name)

        return click.Command(
            name,
            callback=callback,
            help=function.__doc__,
            epilog=EVERYWHERE,
            params=[*map(_flag, dataclasses.fields(kind)), _config_flag()],  # type: ignore[arg-type]
            context_settings={
                "token_normalize_func": lambda token: token.replace("_", "-"),
                "show_default": True,
                "ignore_unknown_options": True,
                "allow_extra_args": True,
            },
        )

    return decorate


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
