"""`metaopt list`: every name that the other commands take, and the options behind it."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import click

from ..core.config import default_text
from ..core.errors import MetaoptError
from ..core.registry import Registry
from ..generative import GENERATIVE_OPTIMIZERS
from ..optimizers import BASE_OPTIMIZERS
from ..targets import PATTERNS, TARGETS
from ..tasks import TASKS
from .options import EVERYWHERE
from .output import Result

KINDS: Mapping[str, Registry] = {
    "tasks": TASKS,
    "targets": TARGETS,
    "optimizers": BASE_OPTIMIZERS,
    "generative-optimizers": GENERATIVE_OPTIMIZERS,
}
"""What can be listed."""


@click.command("list", epilog=EVERYWHERE)
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
@click.argument("name", required=False)
def command(kind: str | None, name: str | None) -> None:
    """List tasks, targets, base optimizers and generative optimizers, those of installed plug-ins too.

    With KIND (such as `targets`) only these, with NAME, too (such as `targets GPT`), the options of that one.
    """
    kinds = [kind] if kind else list(KINDS)
    if click.get_current_context().find_root().params.get("as_json"):
        facts = _facts(KINDS[kind], name) if kind and name else {each: _all_facts(KINDS[each]) for each in kinds}
        click.echo(Result({"command": "list", **facts}, {}).json())
    elif kind and name:
        click.echo(_description(KINDS[kind], name))
    else:
        click.echo("\n\n".join(map(_section, kinds)))


def _all_facts(known: Registry) -> list[dict[str, Any]]:
    return [{"name": each, "origin": known.origin(each), "summary": _summary(known, each)} for each in known.names()]


def _facts(known: Registry, name: str) -> dict[str, Any]:
    options = [dict(zip(("name", "default", "help"), each, strict=True)) for each in _options(known.get(name))]
    return {"name": name, "origin": known.origin(name), "summary": _summary(known, name), "options": options}


def _section(kind: str) -> str:
    known = KINDS[kind]
    rows = [(name, known.origin(name), _summary(known, name)) for name in known.names()]
    if kind == "targets":
        rows += [(pattern, "", meaning) for pattern, meaning in PATTERNS.items()]
    return f"{kind}\n{_table(rows)}"


def _summary(known: Registry, name: str) -> str:
    """What a thing says of itself, or why it cannot."""
    try:
        return _first_line(known.get(name))
    except MetaoptError as error:
        return f"unusable: {error}"


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _description(known: Registry, name: str) -> str:
    thing = known.get(name)
    return f"{name} ({known.origin(name)}): {_first_line(thing)}\n{_table(_options(thing))}"


def _options(thing: Any) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each option; what is no `Config` does not say what its options mean."""
    if hasattr(thing, "Config"):
        fields = dataclasses.fields(thing.Config)
        return [(field.name, default_text(field), field.metadata.get("help", "")) for field in fields]
    _, *parameters = inspect.signature(thing).parameters.values()  # the first is what it optimizes
    return [(each.name, "" if each.default is each.empty else str(each.default), "") for each in parameters]


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Rows of three cells under one another, the first two as wide as their widest."""
    rows = list(rows)
    first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return "\n".join(f"  {a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows)
