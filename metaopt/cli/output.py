"""What a command ends with: a summary for people, or one JSON document for scripts."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Result:
    """What a command made and found.

    Attributes:
        facts: everything, for scripts, as JSON can hold it.
        lines: what was made, where it is, and what came of it; text by a label of one word.
        next_commands: what could be done now; the words of each command.
        table: figures, as text that is aligned already.
    """

    facts: Mapping[str, Any]
    lines: Mapping[str, str]
    next_commands: Sequence[Sequence[str]] = ()
    table: str = ""

    def text(self) -> str:
        """The summary; each command stands on a line of its own, so that it can be pasted."""
        width = max(map(len, self.lines), default=0) + 1
        parts = [self.table.rstrip("\n") + "\n"] if self.table else []
        parts += [f"{label + ':':<{width}}  {text}" for label, text in self.lines.items()]
        parts += ["next:", *(f"  {command}" for command in self._commands())] if self.next_commands else []
        return "\n".join(parts)

    def json(self) -> str:
        """One document."""
        document = _finite({**self.facts, "next": self._commands()})
        return json.dumps(document, indent=1, allow_nan=False, default=str)

    def _commands(self) -> list[str]:
        return [shlex.join(words) for words in self.next_commands]


def show(result: Result, command: str) -> None:
    """Write a result to stdout: as JSON where `--json` was given, else for people, but for `--quiet`."""
    given = click.get_current_context().find_root().params
    if given.get("as_json"):
        click.echo(Result({"command": command, **result.facts}, {}, result.next_commands).json())
    elif not given.get("quiet"):
        click.echo(result.text())


def plain(markdown: str) -> str:
    """A sentence of a run's description without its bold type."""
    return markdown.replace("**", "")


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
