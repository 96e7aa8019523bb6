"""Output of the commands: a human-readable summary, or one JSON document for scripts."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from ..core.documents import json_text


@dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
        facts: the complete result as JSON values.
        lines: text by label, for the summary.
        next_commands: suggestions for the next step; the words of each command.
        table: figures as aligned text, for the summary.
        failed: whether the command ends with an error, although it has a result.
    """

    facts: Mapping[str, Any]
    lines: Mapping[str, str]
    next_commands: Sequence[Sequence[str]] = ()
    table: str = ""
    failed: bool = False

    def text(self) -> str:
        """The summary. Each suggested command is a line of its own, ready to paste."""
        width = max(map(len, self.lines), default=0) + 1
        parts = [self.table.rstrip("\n") + "\n"] if self.table else []
        parts += [f"{label + ':':<{width}}  {text}" for label, text in self.lines.items()]
        parts += ["next:", *(f"  {command}" for command in self._commands())] if self.next_commands else []
        return "\n".join(parts)

    def json(self) -> str:
        """The facts and the suggested commands as JSON."""
        return json_text({**self.facts, "next": self._commands()}).rstrip("\n")

    def _commands(self) -> list[str]:
        return [shlex.join(words) for words in self.next_commands]


def show(result: Result, command: str) -> None:
    """Print a result: as JSON with `--json`, else as a summary unless `--quiet` is given.

    Raises:
        click.exceptions.Exit: the result is a failure.
    """
    flags = click.get_current_context().find_root().params
    if flags.get("as_json"):
        click.echo(Result({"command": command, **result.facts}, {}, result.next_commands).json())
    elif not flags.get("quiet"):
        click.echo(result.text())
    if result.failed:
        click.get_current_context().exit(1)


def plain(markdown: str) -> str:
    """A sentence in Markdown without bold type."""
    return markdown.replace("**", "")
