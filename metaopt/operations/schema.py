"""The tables of the queue, their version, and how an older version becomes the present one."""

from collections.abc import Callable, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from ..core.errors import QueueError

_METADATA = MetaData()

SCHEMA = Table("queue_schema", _METADATA, Column("version", Integer, nullable=False))
"""One row: the version of the tables."""

JOBS = Table(
    "queue_jobs",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("not_before", Float(53)),
    Column("retry_at", Float(53)),
    Column("lease", Float(53), nullable=False),
    Column("needs", Text),
    Column("beat", Integer, nullable=False, default=0),
    Column("steps", Integer, nullable=False, default=0),
    Column("request", Text),
    Column("claim", Text),
    Column("host", Text),
    Column("pid", Integer),
    Column("slot", Text),
    Column("identity", Text),
    Column("run_ids", Text, nullable=False, default="[]"),
    Column("log", Text),
    Column("error", Text),
    Column("version", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("started", Float(53)),
    Column("ended", Float(53)),
    Index("queue_jobs_order", "state", "priority", "id"),
    sqlite_autoincrement=True,
)
"""A row per job. `claim` is a random text of the call that claimed it; `config` and `run_ids` are JSON."""

DEPENDENCIES = Table(
    "queue_dependencies",
    _METADATA,
    Column("job", ForeignKey(JOBS.c.id), primary_key=True),
    Column("needs", ForeignKey(JOBS.c.id), primary_key=True),
)
"""A row per job and job that must be done before."""

WORKERS = Table(
    "queue_workers",
    _METADATA,
    Column("host", Text, primary_key=True),
    Column("slot", Text, primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("identity", Text),
    Column("device", Text),
    Column("job", Integer),
    Column("beat", Integer, nullable=False),
    Column("started", Float(53), nullable=False),
    Column("seen", Float(53), nullable=False),
)
"""A row per worker; a worker that ends removes its own."""

UPGRADES: Sequence[Callable[[Connection], None]] = ()
"""Functions that change the tables of version 1 to version 2, of 2 to 3, and so on."""

_LOCK = 4817_2201
"""Number of the advisory lock of PostgreSQL under which the tables are made."""


def prepare(connection: Connection, place: str) -> None:
    """Make the tables, or bring them up to date, in a transaction that excludes other writers.

    Args:
        place: the queue, for messages.
    Raises:
        QueueError: a newer metaopt wrote the tables.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
    present = 1 + len(UPGRADES)
    if not inspect(connection).has_table(SCHEMA.name):
        _METADATA.create_all(connection)
        connection.execute(insert(SCHEMA).values(version=present))
        return
    found = check(connection, place)
    for upgrade in UPGRADES[found - 1 :]:
        upgrade(connection)
    connection.execute(update(SCHEMA).values(version=present))


def check(connection: Connection, place: str) -> int:
    """The version of the tables, which exist.

    Raises:
        QueueError: a newer metaopt wrote them.
    """
    found, present = connection.execute(select(SCHEMA.c.version)).scalar_one(), 1 + len(UPGRADES)
    if not 1 <= found <= present:
        raise QueueError(
            f"the tables of {place} have version {found}, and this metaopt knows versions 1 to {present}; update "
            "metaopt here, or choose another queue"
        )
    return int(found)
