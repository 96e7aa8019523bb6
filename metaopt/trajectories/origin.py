"""The origin of a file: the command that made it, what it was made from, and the checks that it has passed.

Each checkpoint states its origin in its sidecar, each trajectory in `origin.json`, each registered version in a tag.
`metaopt lineage` follows them from a version back to its data.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from ..core.config import Config
from ..core.config_digest import config_digest
from ..core.errors import FileFormatError, StorageError
from ..weights.facts import MAPPING, TEXT, Rule, check_fields
from .sealed_json import read_sealed, write_sealed

ORIGIN_FILE = "origin.json"
"""Name of the file in the folder of a trajectory that states its origin."""

DATA = "data set"
WEIGHTS = "weight file"
TRAJECTORY = "trajectory"
CHECKPOINT = "checkpoint"
MODEL = "model"
KINDS = (DATA, WEIGHTS, TRAJECTORY, CHECKPOINT, MODEL)
"""Kinds of what has an origin, in the order in which they are made."""

FIRST = (DATA, WEIGHTS)
"""Kinds with which a lineage begins: data, and weights of other programs or those that come with metaopt."""

SCHEMA = 1

log = logging.getLogger(__name__)

_OPTIONAL_TEXT = Rule("text or null", lambda value: value is None or isinstance(value, str))
_OPTIONAL_MAPPING = Rule("names and values, or null", lambda value: value is None or isinstance(value, dict))
_PARENTS = Rule(
    "a list of parents", lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value)
)
_GENERATOR = {"command": TEXT, "version": TEXT, "config": TEXT}
_PARENT = {
    "kind": Rule("one of " + ", ".join(KINDS), lambda value: value in KINDS),
    "name": TEXT,
    "digest": TEXT,
    "run_id": _OPTIONAL_TEXT,
    "generator": _OPTIONAL_MAPPING,
}
_ORIGIN = {"generator": Rule("command, version and config", MAPPING.holds, fields=_GENERATOR), "parents": _PARENTS}


@dataclass(frozen=True)
class Generator:
    """What made something.

    Attributes:
        command: the command of metaopt, or "task <name>" for a data set.
        version: version of metaopt.
        config: digest of the configuration, as `config_digest` computes it.
    """

    command: str
    version: str
    config: str

    @classmethod
    def of(cls, command: str, config: Config | Mapping[str, Any]) -> Self:
        """The generator with this version of metaopt and a configuration."""
        return cls(command, metaopt_version(), config_digest(config))

    def __str__(self) -> str:
        return f"{self.command}, metaopt {self.version}, configuration {self.config[:8]}"


@dataclass(frozen=True)
class Parent:
    """What something was made from.

    Attributes:
        kind: one of `KINDS`.
        name: as users know it, such as `digits/seed_0`.
        digest: of its contents.
        run_id: the run that made it; None without a tracking store, and for data sets.
        generator: of a data set, which has no file of its own that states it.
    """

    kind: str
    name: str
    digest: str
    run_id: str | None = None
    generator: Generator | None = None


@dataclass(frozen=True)
class Origin:
    """Where something comes from.

    Attributes:
        generator: what made it.
        parents: what it was made from.
    """

    generator: Generator
    parents: tuple[Parent, ...]

    def to_mapping(self) -> dict[str, Any]:
        """The origin as JSON values."""
        return {
            "generator": _generator_values(self.generator),
            "parents": parent_values(self.parents),
        }

    @classmethod
    def from_mapping(cls, values: Any, source: object) -> Self:
        """Read an untrusted origin.

        Args:
            source: the file or the version, for messages.
        Raises:
            FileFormatError: the values are no origin.
        """
        try:
            check_fields(values if isinstance(values, dict) else {}, _ORIGIN)
            return cls(_generator(values["generator"]), tuple(map(_parent, values["parents"])))
        except (FileFormatError, KeyError) as error:
            raise FileFormatError(
                f"{source} states no origin that this metaopt can read: {error}; copy it again, or use the version "
                "that wrote it"
            ) from error


def write_origin(folder: Path, origin: Origin) -> None:
    """Write the origin of a trajectory beside its snapshots. It only describes a training: a failure is a warning."""
    try:
        write_sealed(folder / ORIGIN_FILE, {"schema": SCHEMA, **origin.to_mapping()})
    except StorageError as error:
        log.warning("the origin of %s is not stored, and the training goes on: %s", folder, error)


def read_origin(folder: Path) -> Origin | None:
    """Read the origin of a trajectory; None if it has none, as those that an older metaopt recorded.

    Raises:
        FileFormatError: the file is damaged, or of another schema.
    """
    path = folder / ORIGIN_FILE
    if not os.path.lexists(path):
        return None
    values = read_sealed(path)
    check_schema(values, path)
    return Origin.from_mapping(values, path)


def check_schema(values: Mapping[str, Any], path: Path) -> None:
    """Check the schema of a file that states an origin.

    Raises:
        FileFormatError: it is another one.
    """
    if values.get("schema") != SCHEMA or type(values["schema"]) is not int:
        raise FileFormatError(
            f"{path} has schema {values.get('schema')!r:.40}; this metaopt reads schema {SCHEMA}: use the version that "
            "wrote it"
        )


def metaopt_version() -> str:
    """The version of metaopt; "unreleased" for a source checkout that is not installed."""
    try:
        return version("metaopt")
    except PackageNotFoundError:
        return "unreleased"


def data_set(task: str, config: Config | Mapping[str, Any], digest: str) -> Parent:
    """The data of a task as a parent.

    Args:
        config: of the task.
        digest: `Task.digest()`.
    """
    return Parent(DATA, task, digest, generator=Generator.of(f"task {task}", config))


def parent_values(parents: Sequence[Parent]) -> list[dict[str, Any]]:
    """Parents as JSON values."""
    return [_parent_values(parent) for parent in parents]


def parents_from(values: Any, source: object) -> tuple[Parent, ...]:
    """Read untrusted parents.

    Args:
        source: the file, for messages.
    Raises:
        FileFormatError: the values are no parents.
    """
    try:
        check_fields({"parents": values}, {"parents": _PARENTS})
        return tuple(map(_parent, values))
    except FileFormatError as error:
        raise FileFormatError(
            f"{source} states nothing that this metaopt can read about what it was made from: {error}; copy it again, "
            "or use the version that wrote it"
        ) from error


def _generator_values(generator: Generator) -> dict[str, str]:
    return {"command": generator.command, "version": generator.version, "config": generator.config}


def _parent_values(parent: Parent) -> dict[str, Any]:
    generator = None if parent.generator is None else _generator_values(parent.generator)
    return {"kind": parent.kind, "name": parent.name, "digest": parent.digest, "run_id": parent.run_id,
            "generator": generator}  # fmt: skip


def _generator(values: Mapping[str, Any]) -> Generator:
    check_fields(values, _GENERATOR)
    return Generator(values["command"], values["version"], values["config"])


def _parent(values: Mapping[str, Any]) -> Parent:
    check_fields(values, _PARENT)
    generator = None if values["generator"] is None else _generator(values["generator"])
    return Parent(values["kind"], values["name"], values["digest"], values["run_id"], generator)
