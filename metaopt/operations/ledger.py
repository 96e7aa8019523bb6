"""The ledger: an index of all checkpoints in a folder, in the SQLite file `ledger.db` there.

The sidecars beside the checkpoints are the truth. The index is brought up to date by each command that reads it, and
can be removed at any time. It names no file that is missing: what deletes a checkpoint removes it from the index first.
"""

import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Column, MetaData, Table
from sqlalchemy.exc import DatabaseError

from ..core.errors import FileFormatError, StorageError
from ..core.text import reason_of
from ..trajectories.ledger_entry import LedgerEntry, described_by, entry_of, pin_path, read_entry, sidecar_path
from ..weights.header import read_header
from ..weights.shards import is_shard, main_file, shards_beside

INDEX_FILE = "ledger.db"
"""Name of the index in the folder of the checkpoints."""

_SCHEMA = 1
_KIND = "checkpoint"
_ENDINGS = (".safetensors", ".safetensors.json", ".safetensors.pinned")
_ENTRIES = Table(
    "entries",
    MetaData(),
    Column("path", sqlalchemy.String, primary_key=True),
    Column("run_id", sqlalchemy.String),
    Column("run_name", sqlalchemy.String, nullable=False),
    Column("training", sqlalchemy.String, nullable=False),
    Column("step", sqlalchemy.BigInteger, nullable=False),
    Column("created", sqlalchemy.String, nullable=False),
    Column("size", sqlalchemy.BigInteger, nullable=False),
    Column("sha256", sqlalchemy.String, nullable=False),
    Column("content_sha256", sqlalchemy.String, nullable=False),
    Column("metrics", sqlalchemy.String, nullable=False),
    Column("is_pinned", sqlalchemy.Boolean, nullable=False),
)

R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerRecord:
    """A row of the index.

    Attributes:
        path: relative to the folder of the checkpoints.
        run_id, run_name, training, step, metrics: as in `TrainingFacts`.
        created: time of writing, in UTC (ISO 8601).
        size: of the checkpoint with its shards and its sidecar [bytes].
        sha256, content_sha256: as in `DescribedFile`.
        is_pinned: whether a person pinned it.
    """

    path: str
    run_id: str | None
    run_name: str
    training: str
    step: int
    created: str
    size: int
    sha256: str
    content_sha256: str
    metrics: Mapping[str, float]
    is_pinned: bool


@dataclass(frozen=True)
class Leftover:
    """What is left of a checkpoint whose own file is gone: shards, a sidecar or a pin.

    Attributes:
        path: that of the checkpoint, relative to the folder.
        size: of the files [bytes].
    """

    path: str
    size: int


@dataclass(frozen=True)
class Found:
    """All checkpoints of a folder.

    Attributes:
        records: those that the ledger knows, by path.
        problems: why the ledger does not know the others, by path: no sidecar, one of another file, or damage.
        leftovers: what is left of others, by path.
    """

    records: list[LedgerRecord]
    problems: dict[str, str]
    leftovers: list[Leftover]


class Ledger:
    """The index of the checkpoints in a folder.

        from pathlib import Path
        from metaopt.operations.ledger import Ledger

        found = Ledger(Path("checkpoints")).sync()
        for record in found.records:
            print(record.path, record.run_name, record.step, record.metrics)

    Args:
        folder: folder of all checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / INDEX_FILE

    def sync(self) -> Found:
        """Read all sidecars, and bring the index up to date. An index that cannot be written is a warning.

        Raises:
            StorageError: another process writes the index.
        """
        found = scan(self.folder)
        rows = {record.path: _row(record) for record in found.records}

        def update(connection: sqlalchemy.Connection) -> None:
            current = {row["path"]: row for row in _rows(connection)}
            _delete(connection, [path for path, row in current.items() if rows.get(path) != row])
            if new := [row for path, row in rows.items() if current.get(path) != row]:
                connection.execute(sqlalchemy.insert(_ENTRIES), new)

        if rows or self.path.is_file():
            self._change(update)
        return found

    def records(self) -> list[LedgerRecord]:
        """The rows of the index as it is, by path; none without an index.

        Raises:
            StorageError: another process writes the index.
        """
        rows = self._change(_rows) if self.path.is_file() else None
        found = [LedgerRecord(**{**row, "metrics": json.loads(row["metrics"])}) for row in rows or []]
        return sorted(found, key=lambda each: each.path)

    def forget(self, paths: Collection[str]) -> None:
        """Remove checkpoints from the index, before their files are deleted.

        Where the index cannot be written, as on a full disk, it is removed: the next `sync` writes it again.

        Raises:
            StorageError: another process writes the index.
        """
        if self.path.is_file():
            self._change(lambda connection: _delete(connection, paths))

    def _change(self, work: Callable[[sqlalchemy.Connection], R]) -> R | None:
        """Do some work in a transaction; None if the index cannot be used, which then is removed."""
        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}", poolclass=sqlalchemy.NullPool)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # pysqlite begins at the first write
                _prepare(connection)
                return work(connection)
        except DatabaseError as error:
            reason = reason_of(error.orig or error)
            if "locked" in reason:
                raise StorageError(
                    f"{self.path} is in use by another process ({reason}); wait until it ends, then run again"
                ) from error
            log.warning("%s cannot be used, and is removed: %s. The sidecars have all that it has", self.path, reason)
            for each in (self.path, self.path.with_name(f"{self.path.name}-journal")):
                with suppress(OSError):
                    each.unlink()
            return None


def scan(folder: Path) -> Found:
    """Find all checkpoints of a folder and its subfolders, without those that are hidden or in hidden subfolders."""
    records, problems, leftovers = [], {}, {}
    for path in sorted(each for each in _visible(folder) if each.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors" and not is_shard(path):
            try:
                header = read_header(path)
                if header.kind == _KIND:
                    records.append(_record(name, path, entry_of(path, header)))
            except (FileFormatError, OSError) as error:
                problems[name] = str(error)
        elif (owner := described_by(path) or main_file(path)) is not None and not owner.exists():
            rest = [each for each in (*shards_beside(owner), sidecar_path(owner), pin_path(owner)) if each.exists()]
            gone = owner.relative_to(folder).as_posix()
            if path == sidecar_path(owner) and (problem := _problem_of_sidecar(owner)):
                problems[name] = problem  # somebody else's file
                continue
            leftovers[gone] = Leftover(gone, sum(each.stat().st_size for each in rest))
    return Found(records, problems, [*leftovers.values()])


def _problem_of_sidecar(checkpoint: Path) -> str:
    try:
        read_entry(checkpoint)
    except FileFormatError as error:
        return str(error)
    return ""


def _visible(folder: Path) -> Iterator[Path]:
    """The files of checkpoints, sidecars and pins below a folder; none if it does not exist."""
    if not folder.is_dir():
        return
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        yield from (Path(place, name) for name in names if name.endswith(_ENDINGS) and not name.startswith("."))


def _record(name: str, path: Path, entry: LedgerEntry) -> LedgerRecord:
    facts, file = entry.facts, entry.file
    return LedgerRecord(
        path=name,
        run_id=facts.run_id,
        run_name=facts.run_name,
        training=facts.training,
        step=facts.step,
        created=entry.created,
        size=file.size + file.shards_size + sidecar_path(path).stat().st_size,
        sha256=file.sha256,
        content_sha256=file.content_sha256,
        metrics=facts.metrics,
        is_pinned=pin_path(path).exists(),
    )


def _row(record: LedgerRecord) -> dict[str, Any]:
    return {**asdict(record), "metrics": json.dumps(dict(record.metrics), sort_keys=True)}


def _rows(connection: sqlalchemy.Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sqlalchemy.select(_ENTRIES)).mappings()]


def _delete(connection: sqlalchemy.Connection, paths: Collection[str]) -> None:
    if paths:
        chosen = sqlalchemy.delete(_ENTRIES).where(_ENTRIES.c.path == sqlalchemy.bindparam("gone"))
        connection.execute(chosen, [{"gone": path} for path in paths])


def _prepare(connection: sqlalchemy.Connection) -> None:
    """Create the table, also in place of one of another version of metaopt."""
    if connection.exec_driver_sql("PRAGMA user_version").scalar() == _SCHEMA:
        return
    _ENTRIES.drop(connection, checkfirst=True)
    _ENTRIES.create(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {_SCHEMA}")
