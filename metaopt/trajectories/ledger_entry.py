"""The ledger entry of a checkpoint: a JSON file beside it, its *sidecar*, `<name of the checkpoint>.json`.

It states the run and the step, the size and the sha256 of the checkpoint, the last metrics, versions and the origin.
It is written when the checkpoint is complete under a temporary name, and before that is renamed. So a checkpoint has
its own sidecar. After a kill in between, the older checkpoint stands beside the sidecar of the next one, and readers
say so. A sidecar is never changed after it was written.
"""

import logging
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..core.errors import FileFormatError, MetaoptError, StorageError
from ..core.text import shown
from ..weights.facts import COUNT, LOSSES, MAPPING, TEXT, Rule, check_fields
from ..weights.header import SCHEMA as FILE_SCHEMA
from ..weights.header import Header, read_header
from ..weights.regular import sha256_of_file
from ..weights.shards import are_digests, shard_paths, shards_beside
from .origin import CHECKPOINT, SCHEMA, Origin, Parent, check_schema, metaopt_version
from .sealed_json import read_sealed, write_sealed

_ENDING = ".json"
_PINNED = ".pinned"
_VALIDATED = ".validated.json"
_KIND = "checkpoint"

_DIGEST = Rule("a sha256", lambda value: are_digests([value]))
_RUN_ID = Rule("the ID of a run, or null", lambda value: value is None or isinstance(value, str))
_TEXTS = Rule(
    "texts by name", lambda value: isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
)
_FILE = {"name": TEXT, "size": COUNT, "sha256": _DIGEST, "content_sha256": _DIGEST, "shards_size": COUNT}
_ENTRY = {
    "run_id": _RUN_ID,
    "run_name": TEXT,
    "training": TEXT,
    "step": COUNT,
    "created": TEXT,
    "metrics": LOSSES,
    "file": Rule("names and values", MAPPING.holds, fields=_FILE),
    "versions": _TEXTS,
    "origin": MAPPING,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingFacts:
    """What a training knows about the checkpoint that it writes.

    Attributes:
        training: kind of the training: `target`, `optimizer` or `controller`, for the phases 1 to 3.
        run_name: name of the run, such as `digits/seed_0`.
        run_id: ID of the run in the tracking store; None without a store.
        step: its training time [optimizer steps, updates or decisions].
        metrics: the last value of each metric; those that are not finite are left out.
        origin: command, configuration and parents.
    """

    training: str
    run_name: str
    run_id: str | None
    step: int
    metrics: Mapping[str, float]
    origin: Origin


@dataclass(frozen=True)
class DescribedFile:
    """The checkpoint that a sidecar describes.

    Attributes:
        name: name of the file.
        size: size of the file, without its shards [bytes].
        sha256: of the file. It lists the sha256 of each shard.
        content_sha256: the sha256 in the header of the file, over its facts and tensors, which is quick to compare.
        shards_size: size of all shards together [bytes].
    """

    name: str
    size: int
    sha256: str
    content_sha256: str
    shards_size: int

    @classmethod
    def of(cls, name: str, path: Path) -> "DescribedFile":
        """Describe a complete file, which may still have a temporary name.

        Raises:
            FileFormatError: it was not written by metaopt.
            OSError: it cannot be read.
        """
        header = read_header(path, _KIND)
        shards = sum(each.stat().st_size for each in shard_paths(path.with_name(name), header.shards))
        return cls(name, path.stat().st_size, sha256_of_file(path, "a checkpoint"), header.sha256, shards)


@dataclass(frozen=True)
class LedgerEntry:
    """The ledger entry of a checkpoint.

    Attributes:
        facts: what the training stated.
        file: the checkpoint that it describes.
        versions: of metaopt and torch, and the schema of the file.
        created: time of writing, in UTC (ISO 8601).
    """

    facts: TrainingFacts
    file: DescribedFile
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """The entry as JSON values."""
        facts = self.facts
        return {
            "schema": SCHEMA,
            "run_id": facts.run_id,
            "run_name": facts.run_name,
            "training": facts.training,
            "step": facts.step,
            "created": self.created,
            "metrics": {name: value for name, value in facts.metrics.items() if math.isfinite(value)},
            "file": asdict(self.file),
            "versions": dict(self.versions),
            "origin": facts.origin.to_mapping(),
        }


def sidecar_path(path: Path) -> Path:
    """Path of the sidecar of a checkpoint."""
    return path.with_name(path.name + _ENDING)


def pin_path(path: Path) -> Path:
    """Path of the empty file that pins a checkpoint: `metaopt prune` never deletes it."""
    return path.with_name(path.name + _PINNED)


def validation_path(path: Path) -> Path:
    """Path of the record of the validation of a file."""
    return path.with_name(path.name + _VALIDATED)


def described_by(path: Path) -> Path | None:
    """The checkpoint of a sidecar or of a pin; None if the path has the name of neither."""
    ending = next((each for each in (_ENDING, _PINNED) if path.name.endswith(f".safetensors{each}")), None)
    return None if ending is None else path.with_name(path.name.removesuffix(ending))


def read_entry(path: Path) -> LedgerEntry:
    """Read the sidecar of a checkpoint, without comparing the two.

    Args:
        path: the checkpoint.
    Raises:
        FileFormatError: there is no sidecar, or it is damaged, of another schema or invalid.
    """
    sidecar = sidecar_path(path)
    values = read_sealed(sidecar)
    check_schema(values, sidecar)
    try:
        check_fields(values, _ENTRY)
        datetime.fromisoformat(values["created"])
    except ValueError as error:
        raise FileFormatError(f"{sidecar} is no ledger entry: {error}; copy the file again") from error
    facts = TrainingFacts(
        training=values["training"],
        run_name=values["run_name"],
        run_id=values["run_id"],
        step=values["step"],
        metrics={name: float(value) for name, value in values["metrics"].items()},
        origin=Origin.from_mapping(values["origin"], sidecar),
    )
    names = ("name", "size", "sha256", "content_sha256", "shards_size")
    file = DescribedFile(**{name: values["file"][name] for name in names})
    return LedgerEntry(facts, file, values["versions"], values["created"])


def entry_of(path: Path, header: Header | None = None) -> LedgerEntry:
    """Read the sidecar of a checkpoint, and compare it with the header and the size of the file, which is quick.

    Args:
        header: that of the checkpoint, if it was read.
    Raises:
        FileFormatError: as for `read_entry`; or the checkpoint is missing or damaged, or the sidecar is that of another
            file.
    """
    entry = read_entry(path)
    content = (header or read_header(path, _KIND)).sha256
    found, expected = (path.stat().st_size, content), (entry.file.size, entry.file.content_sha256)
    if found != expected or entry.file.name != path.name:
        raise FileFormatError(
            f"{sidecar_path(path)} is the sidecar of another file: it describes {shown(entry.file.name)}, "
            f"{expected[0]:,} bytes with content {expected[1][:12]}…; {path.name} has {found[0]:,} bytes with content "
            f"{content[:12]}…. Copy both again; if a training was killed there, its next checkpoint replaces both"
        )
    return entry


def check_entry(path: Path) -> LedgerEntry:
    """Read the sidecar of a checkpoint, and compare every bit of the file with its sha256.

    Raises:
        FileFormatError: as for `entry_of`; or the file was changed.
    """
    entry = entry_of(path)
    found = sha256_of_file(path, "a checkpoint")
    if found != entry.file.sha256:
        raise FileFormatError(
            f"{path} is damaged: its sha256 is {found[:12]}…, its sidecar states {entry.file.sha256[:12]}…; copy the "
            "file again"
        )
    return entry


def checkpoint_parent(path: Path, content_sha256: str) -> Parent:
    """A checkpoint as the parent of what is made from it.

    Args:
        content_sha256: the sha256 in its header.
    """
    try:
        facts = entry_of(path).facts
        return Parent(CHECKPOINT, f"{facts.run_name}, step {facts.step}", content_sha256, facts.run_id)
    except (FileFormatError, OSError):  # one of an older metaopt
        return Parent(CHECKPOINT, path.name, content_sha256)


def files_beside(path: Path) -> list[Path]:
    """The sidecar of a checkpoint, to be copied with it; empty if it has none of its own."""
    try:
        entry_of(path)
    except (FileFormatError, OSError):
        return []
    return [sidecar_path(path)]


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, then its shards, then its sidecar, its pin and the record of its validation.

    A kill in between leaves files whose names say what they belonged to.

    Raises:
        StorageError: a file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        for each in (*shards_beside(path), sidecar_path(path), pin_path(path), validation_path(path)):
            each.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"could not remove {path}: {error}; make its folder writable, then run again") from error


class SidecarWriter:
    """Writes the sidecar of a checkpoint that is about to be renamed into place.

    A ledger only describes a training: a sidecar that cannot be written is a warning.

    Args:
        path: the checkpoint.
        facts: what the training states; None for a file without a sidecar.
    """

    def __init__(self, path: Path, facts: TrainingFacts | None) -> None:
        self._path, self._facts, self._is_written = path, facts, False

    def before_rename(self, temporary: Path) -> None:
        """Write the sidecar of the complete file, which still has a temporary name."""
        if self._facts is None:
            return
        try:
            file = DescribedFile.of(self._path.name, temporary)
            created = datetime.now(UTC).isoformat(timespec="microseconds")
            entry = LedgerEntry(self._facts, file, _versions(), created)
            write_sealed(sidecar_path(self._path), entry.to_mapping())
            self._is_written = True
        except (MetaoptError, OSError) as error:
            log.warning("the checkpoint %s gets no ledger entry, and the training goes on: %s", self._path, error)

    def after_rename(self) -> None:
        """Remove the sidecar of the older file, if this one got none."""
        if not self._is_written and os.path.lexists(sidecar_path(self._path)):
            with suppress(OSError):
                sidecar_path(self._path).unlink()


def _versions() -> dict[str, str]:
    return {"metaopt": metaopt_version(), "torch": version("torch"), "schema": str(FILE_SCHEMA)}
