"""The database of a queue: SQLite or PostgreSQL, transactions, and patience with a database that is away."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, NoSuchModuleError, OperationalError

from ..core.addresses import without_password
from ..core.dependencies import import_extra
from ..core.errors import QueueError
from ..core.text import reason_of, shown
from .schema import SCHEMA, UPGRADES, check, prepare

log = logging.getLogger(__name__)
T = TypeVar("T")

VARIABLE = "METAOPT_QUEUE"
"""Environment variable with the URL of the queue."""

_DEFAULT = "sqlite:///queue.db"
_BUSY = 30.0  # to wait for other writers of SQLite [s]
_READING = ("BEGIN",)
# Locked for writing at once: a transaction that reads first and writes later could find the table changed.
_QUICK = ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE")
_DURABLE = ("PRAGMA synchronous = FULL", "BEGIN IMMEDIATE")
_PAUSES = (0.1, 5.0)  # between tries to reach a database, at first and at most [s]


def queue_url(given: str | None = None) -> str:
    """The URL of the queue: the given one, else that of METAOPT_QUEUE, else `queue.db` in the working folder.

    Args:
        given: a URL, or the path of a file of SQLite.
    """
    url = given or os.environ.get(VARIABLE) or _DEFAULT
    return url if "://" in url else f"sqlite:///{url}"


class Database:
    """Transactions on the tables of a queue.

    Args:
        url: of SQLite or PostgreSQL.
        create: make the tables if they are missing.
        patience: time to try again while the database does not respond [s].
    Raises:
        QueueError: the URL is not understood, or the queue does not exist, does not respond, or is of a newer metaopt.
        InvalidConfig: the package for PostgreSQL is missing.
    """

    def __init__(self, url: str, *, create: bool = True, patience: float = 0.0) -> None:
        self.url = _parsed(url)
        self.place = self.url.render_as_string(hide_password=True)
        self.patience = patience
        self._engine = _engine(self.url, create)
        self._ready(create)

    @property
    def folder(self) -> Path:
        """The folder of the queue's file; the working folder for a server."""
        file = self.url.database if self.url.get_backend_name() == "sqlite" else None
        return Path(file or "x").resolve().parent

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a function reads; writers are not blocked."""
        return self._patiently(lambda: self._run(query, _READING))

    def write(self, change: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run a function in a transaction. While the database does not respond it is called again.

        So it can happen that a transaction is carried out, but its answer is lost, and the function is called twice.

        Args:
            durable: whether SQLite waits for the disk. Else the change can be lost with the power of the machine, but
                not after a later durable one.
        """
        return self._patiently(lambda: self._run(change, _DURABLE if durable else _QUICK))

    def _run(self, work: Callable[[Connection], T], begin: tuple[str, ...]) -> T:
        with self._engine.connect().execution_options(begin=begin) as connection, connection.begin():
            return work(connection)

    def _ready(self, create: bool) -> None:
        def is_ready(connection: Connection) -> bool:
            exists = inspect(connection).has_table(SCHEMA.name)
            return exists and check(connection, self.place) == 1 + len(UPGRADES)

        if self.read(is_ready):
            return
        if not create and not self.read(lambda connection: inspect(connection).has_table(SCHEMA.name)):
            raise QueueError(_missing(self.place))
        self.write(lambda connection: prepare(connection, self.place))

    def _patiently(self, work: Callable[[], T]) -> T:
        end, pause = time.monotonic() + self.patience, _PAUSES[0]
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() >= end:
                    raise QueueError(f"the queue {self.place} does not respond ({_reason(error)})") from error
                log.warning("the queue does not respond, trying again (%s)", _reason(error))
            except DatabaseError as error:
                raise QueueError(
                    f"{self.place} cannot be used ({_reason(error)}); expected a queue, or a new file"
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:
        given = shown(without_password(url))
        raise QueueError(f"the queue {given} is no URL; expected sqlite:///queue.db or postgresql://…") from error
    if "@" in (parsed.host or ""):  # not shown, because a part of the password is taken for the host
        raise QueueError("the URL of the queue has several @; write those of a password as %40, and its / as %2F")
    if backend not in ("sqlite", "postgresql"):
        raise QueueError(f"a queue cannot be kept in {shown(backend)}; expected sqlite:///queue.db or postgresql://…")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise QueueError("a queue in memory is seen by one process only; expected a file, such as sqlite:///queue.db")
    # The driver of `postgresql://` differs between versions of SQLAlchemy.
    return parsed.set(drivername="postgresql+psycopg2") if parsed.drivername == "postgresql" else parsed


def _engine(url: URL, create: bool) -> Engine:
    if url.get_backend_name() == "postgresql":
        import_extra("psycopg2", "operations")
        try:
            return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        except (NoSuchModuleError, ImportError) as error:
            raise QueueError(f"{url.drivername} cannot be used ({error}); expected postgresql+psycopg2://…") from error
    file = Path(str(url.database))
    if not create and not file.exists():
        raise QueueError(_missing(str(file)))
    if not file.parent.is_dir():
        raise QueueError(f"the folder {file.parent} of the queue does not exist; make it, or choose another queue")
    engine = create_engine(url, connect_args={"timeout": _BUSY})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transactions of its own
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    for statement in connection.get_execution_options()["begin"]:
        connection.exec_driver_sql(statement)


def _missing(place: str) -> str:
    return (
        f"there is no queue at {place}; `metaopt queue add` makes one. --queue or {VARIABLE} name another (a file, or "
        "postgresql://…)"
    )


def _reason(error: DatabaseError | InterfaceError) -> str:
    return reason_of(error.orig or error)
