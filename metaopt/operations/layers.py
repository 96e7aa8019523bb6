"""Layers of parameters: where a value comes from, and which of several values holds.

The layers are, each before the next: defaults, a hero, a campaign, a machine, flags. A later layer replaces the whole
value of a parameter, also of one that is a mapping, such as `task_options`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..core.config import Config
from ..core.config_digest import config_digest
from ..core.errors import InvalidConfig
from ..core.moved import warn_renamed
from ..core.registry import suggest
from ..core.text import shown
from ..core.values import coerce
from .workflow_table import WORKFLOWS, find_workflow

DEFAULT = "default"
FLAG = "flag"


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        layer: `default`, `hero`, `campaign`, `machine` or `flag`.
        file: the file that states it, if it is one.
        line: the line in the file, from 1; None if it is not known.
    """

    layer: str
    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.file is None:
            return self.layer
        return f"{self.layer} {self.file}" + ("" if self.line is None else f":{self.line}")


class Given(NamedTuple):
    """A value and its origin."""

    value: Any
    origin: Origin


Layer = Mapping[str, Given]
"""Values by the names of their parameters."""


@dataclass(frozen=True)
class Resolved:
    """A configuration in which the layers are merged.

    Attributes:
        workflow: name of its command.
        config: the configuration.
        origins: where the value of each parameter comes from.
    """

    workflow: str
    config: Config
    origins: Mapping[str, Origin]

    @property
    def digest(self) -> str:
        """The digest of the configuration."""
        return config_digest(self.config)


def resolve(workflow: str, layers: Iterable[Layer]) -> Resolved:
    """Merge layers, the weakest first, and check the result.

        from metaopt.operations.layers import FLAG, Given, Origin, resolve

        resolved = resolve("train-target", [{"epochs": Given("5", Origin(FLAG))}])
        resolved.config.epochs, str(resolved.origins["epochs"]), str(resolved.origins["lr"])  # 5, 'flag', 'default'

    Raises:
        UnknownName: there is no such workflow.
        UntrustedCode: a file names code, and no flag trusts it.
        InvalidConfig: a parameter is unknown, or a value is invalid.
    """
    kind = find_workflow(workflow).config_class
    merged: dict[str, Given] = {}
    for layer in layers:
        merged |= {_new_name(kind, name): given for name, given in layer.items()}
    refuse_code(kind, merged)
    config = kind.from_mapping({name: given.value for name, given in merged.items()})
    origins = {name: merged[name].origin if name in merged else Origin(DEFAULT) for name in kind.names()}
    return Resolved(workflow, config, origins)


def refuse_code(kind: type[Config], merged: Layer) -> None:
    """Raise if a value that lets code run comes from a file, and no flag trusts the files.

    Raises:
        UntrustedCode: states the value and how to permit it.
    """
    trust = merged.get("trust_config")
    if trust is not None and trust.origin.file is None and coerce("trust_config", trust.value, bool):
        return
    for name, given in merged.items():
        if given.origin.file is not None:
            kind.refuse_code({name: given.value}, given.origin.file, flags=True)


def flag_layer(values: Mapping[str, Any]) -> Layer:
    """The layer of what a user typed."""
    return {name: Given(value, Origin(FLAG)) for name, value in values.items()}


def shared_layer(values: Layer, workflow: str, place: str) -> Layer:
    """Those of the values for several workflows that one of them has.

    Args:
        place: where the values stand, for messages.
    Raises:
        InvalidConfig: no workflow has a parameter of this name; the message has the nearest names.
    """
    kind = find_workflow(workflow).config_class
    unknown = [name for name in values if not _has(kind, name)]
    for name in unknown:
        if not any(_has(each, name) for each in _all_kinds()):
            known = dict.fromkeys(known for each in _all_kinds() for known in each.names())
            raise InvalidConfig(f"{place} has the parameter {shown(name)}: {suggest(name, known)}")
    return {name: given for name, given in values.items() if name not in unknown}


def own_layer(values: Layer, workflow: str, place: str) -> Layer:
    """The values for one workflow, whose names are checked.

    Raises:
        InvalidConfig: the workflow has no parameter of this name; the message has the nearest names.
    """
    kind = find_workflow(workflow).config_class
    for name in values:
        if not _has(kind, name) and name not in kind.absent:
            raise InvalidConfig(f"{place} has the parameter {shown(name)}: {suggest(name, kind.names())}")
    return values


def _all_kinds() -> Iterator[type[Config]]:
    """The configurations of all workflows; first those that are imported fast and have most parameters."""
    for name in sorted(WORKFLOWS, key=lambda name: not name.startswith(("train-", "evaluate"))):
        yield WORKFLOWS[name].config_class


def _has(kind: type[Config], name: str) -> bool:
    return name in kind.names() or name in kind.renamed


def _new_name(kind: type[Config], name: str) -> str:
    new = kind.renamed.get(name)
    if new is None:
        return name
    warn_renamed(f"the parameter {shown(name)} of {kind.__name__}", repr(new))
    return new
