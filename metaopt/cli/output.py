"""Output of the commands: a human-readable summary, or one JSON document for scripts."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
        facts: the complete result as JSON values.
        lines: text by label, for the summary.
        next_commands: suggestions for the next step; the words of each command.
        table: figures as aligned text, for the summary.
    """

    facts: Mapping[str, Any]
    lines: Mapping[str, str]
    next_commands: Sequence[Sequence[str]] = ()
    table: str = ""

    def text(self) -> str:
        """The summary. Each suggested command is a line of its own, ready to paste."""
        width = max(map(len, self.lines), default=0) + 1
        parts = [self.table.rstrip("\n") + "\n"] if self.table else []
        parts += [f"{label + ':':<{width}}  {text}" for label, text in self.lines.items()]
        parts += ["next:", *(f"  {command}" for command in self._commands())] if self.next_commands else []
        return "\n".join(parts)

    def json(self) -> str:
        """The facts and the suggested commands as JSON."""
        document = _finite({**self.facts, "next": self._commands()})
        return json.dumps(document, indent=1, allow_nan=False, default=str)

    def _commands(self) -> list[str]:
        return [shlex.join(words) for words in self.next_commands]


def show(result: Result, command: str) -> None:
    """Print a result: as JSON with `--json`, else as a summary unless `--quiet` is given."""
    flags = click.get_current_context().find_root().params
    if flags.get("as_json"):
        click.echo(Result({"command": command, **result.facts}, {}, result.next_commands).json())
    elif not flags.get("quiet"):
        click.echo(result.text())


def plain(markdown: str) -> str:
    """A sentence in Markdown without bold type."""
    return markdown.replace("**", "")


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
