"""Shell completion from a stored table: importing the commands would take seconds.

`python -m metaopt.cli.project` writes the table. Names of installed plug-ins are completed too: their entry points are
read without importing the plug-ins.
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
"""Flags of each command, and valid names and entry-point groups of some flags."""

_FOLDERS = ("data-dir", "trajectory-dir", "checkpoint-dir", "cache-dir", "seen", "trajectory", "report-dir", "log-dir")
_FILES = (
    *("config", "mixture", "promote-on", "output", "resume-from", "start-from", "optimizer", "checkpoint"),
    *("path", "against", "queue"),
)

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def outline(name: str, global_flags: Sequence[click.Option]) -> click.Command:
    """Make a command that has its flags and does nothing."""
    params: list[click.Parameter] = [_option(flag) for flag in _table()["flags"][name]]
    if name == "list":
        params.append(click.Argument(["kind"], required=False, type=click.Choice(_table()["kinds"])))
    if name in ("campaign", "config", "queue"):
        params.append(click.Argument(["action"], required=False, type=click.Choice(_table()[name])))
    if name == "diagnose":
        params.append(click.Argument(["probe"], nargs=-1, shell_complete=_names("probes")))
    if name in ("compare", "export-adapter", "inspect", "upload"):
        params.append(click.Argument(["paths"], nargs=-1, type=click.Path()))
    return click.Command(name, params=[*params, *global_flags], context_settings={"ignore_unknown_options": True})


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
