"""Shell completion, without importing what the commands need, which takes seconds.

The table beside this module is written by `metaopt.cli.project`. Names of installed plug-ins are completed, too: entry
points are read without importing what they name.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

TABLE = Path(__file__).with_name("completion.json")
"""The flags of each command, and the names and entry-point groups behind some of them."""

_FOLDERS = ("data-dir", "trajectory-dir", "checkpoint-dir", "cache-dir", "seen", "trajectory")
_FILES = ("config", "mixture", "promote-on", "output", "resume-from", "start-from", "optimizer")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def outline(name: str, everywhere: Sequence[click.Option]) -> click.Command:
    """A command that knows its flags and does nothing.

    Args:
        everywhere: flags that every command takes.
    """
    params: list[click.Parameter] = [_option(flag) for flag in _table()["flags"][name]]
    if name == "list":
        params.append(click.Argument(["kind"], required=False, type=click.Choice(_table()["kinds"])))
    return click.Command(name, params=[*params, *everywhere], context_settings={"ignore_unknown_options": True})


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def _option(flag: str) -> click.Option:
    if flag in _table()["names"]:
        return click.Option([f"--{flag}"], shell_complete=_names(flag))
    path = click.Path(file_okay=flag not in _FOLDERS) if flag in (*_FOLDERS, *_FILES) else None
    return click.Option([f"--{flag}"], type=path)


def _names(flag: str) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        groups = _table()["groups"][flag]
        known = {*_table()["names"][flag], *(point.name for group in groups for point in entry_points(group=group))}
        return [CompletionItem(name) for name in sorted(known) if name.lower().startswith(incomplete.lower())]

    return complete
