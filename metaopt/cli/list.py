"""`metaopt list`: the names of tasks, targets, optimizers, probes and checks, and their options."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..core.config import default_text
from ..core.errors import MetaoptError
from ..core.registry import Registry
from ..core.text import aligned
from ..generative import GENERATIVE_OPTIMIZERS
from ..operations.validation import CHECKS
from ..optimizers import BASE_OPTIMIZERS
from ..probes import PROBES
from ..targets import PATTERNS, TARGETS, describe_target
from ..targets.builders import first_line
from ..tasks import TASKS
from .options import EPILOG
from .output import Result

KINDS: Mapping[str, Registry] = {
    "tasks": TASKS,
    "targets": TARGETS,
    "optimizers": BASE_OPTIMIZERS,
    "generative-optimizers": GENERATIVE_OPTIMIZERS,
    "probes": PROBES,
    "checks": CHECKS,
}
"""Registry of each kind of name."""


@click.command("list", epilog=EPILOG)
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
@click.argument("name", required=False)
def command(kind: str | None, name: str | None) -> None:
    """List tasks, targets, base and generative optimizers, probes and checks, including those of installed plug-ins.

    KIND (such as `targets`) lists one kind. KIND and NAME (such as `targets GPT`) list the options of one name. A
    target may also be one of a library, such as `transformers:GPT2Config`, or a dotted path of your own.
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
    origin, summary, rows = _described(known, name)
    options = [dict(zip(("name", "default", "help"), each, strict=True)) for each in rows]
    return {"name": name, "origin": origin, "summary": summary, "options": options}


def _section(kind: str) -> str:
    known = KINDS[kind]
    rows = [(name, known.origin(name), _summary(known, name)) for name in known.names()]
    if kind == "targets":
        rows += [(pattern, "", meaning) for pattern, meaning in PATTERNS.items()]
    return f"{kind}\n{_table(rows)}"


def _summary(known: Registry, name: str) -> str:
    """First line of the docstring, or the reason why a plug-in cannot be imported."""
    try:
        return first_line(known.get(name))
    except MetaoptError as error:
        return f"unusable: {error}"


def _description(known: Registry, name: str) -> str:
    origin, summary, options = _described(known, name)
    return f"{name} ({origin}): {summary}\n{_table(options)}"


def _described(known: Registry, name: str) -> tuple[str, str, Sequence[tuple[str, str, str]]]:
    """The package, the summary and the options of one name."""
    if known is TARGETS:
        return describe_target(name)
    registered = known.get(name)
    return known.origin(name), first_line(registered), _options(registered)


def _options(registered: Any) -> list[tuple[str, str, str]]:
    """Name, default and help text of each option; base optimizers have no help texts."""
    if hasattr(registered, "Config"):
        fields = dataclasses.fields(registered.Config)
        return [(field.name, default_text(field), field.metadata.get("help", "")) for field in fields]
    _, *parameters = inspect.signature(registered).parameters.values()  # the first is the list of weights
    return [(each.name, "" if each.default is each.empty else str(each.default), "") for each in parameters]


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    return "\n".join(f"  {line}" for line in aligned(rows))
