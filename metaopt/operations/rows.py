"""Rows of the tables as jobs and workers."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from ..core.errors import JobError, QueueError
from ..core.text import reason_of
from .jobs import Job, Owner, Request, State
from .schema import DEPENDENCIES, JOBS, WORKERS


@dataclass(frozen=True)
class WorkerRow:
    """A worker as the table has it.

    Attributes:
        host: name of its machine.
        slot: its place there; one worker per slot.
        pid: number of its process.
        identity: of `core.process_identity`.
        device: where its jobs compute; None if they choose.
        job: the job that it runs.
        beat: number of its reports [count].
        started, seen: times of its start and of its last report, by its own clock [s since 1970].
    """

    host: str
    slot: str
    pid: int
    identity: str | None
    device: str | None
    job: int | None
    beat: int
    started: float
    seen: float


def one_job(connection: Connection, number: int, *, lock: bool = False) -> Job:
    """Read a job.

    Args:
        lock: keep others from changing it until the transaction ends.
    Raises:
        JobError: there is none of this ID.
    """
    query = select(JOBS).where(JOBS.c.id == number)
    found = read_jobs(connection, query.with_for_update() if lock else query)
    if not found:
        raise JobError(f"there is no job {number}; `metaopt queue list` shows all")
    return found[0]


def read_jobs(connection: Connection, query: Select[Any]) -> list[Job]:
    """Read the jobs that a query of their table selects.

    Raises:
        QueueError: a row is damaged.
    """
    rows = connection.execute(query).all()
    needed = _dependencies(connection, [row.id for row in rows])
    return [_job(row, needed.get(row.id, {})) for row in rows]


def read_workers(connection: Connection) -> list[WorkerRow]:
    """Read all workers."""
    rows = connection.execute(select(WORKERS).order_by(WORKERS.c.host, WORKERS.c.slot))
    return [WorkerRow(**row._mapping) for row in rows]


_MOST = 500  # IDs in one query; SQLite has a limit


def _dependencies(connection: Connection, numbers: list[int]) -> dict[int, dict[int, State]]:
    """The dependencies of jobs, with their states, by ID."""
    found: dict[int, dict[int, State]] = {}
    for condition in _batches(numbers, DEPENDENCIES.c.job.in_):
        query = select(DEPENDENCIES.c.job, JOBS.c.id, JOBS.c.state).join_from(
            DEPENDENCIES, JOBS, DEPENDENCIES.c.needs == JOBS.c.id
        )
        for job, needs, state in connection.execute(query.where(condition).order_by(JOBS.c.id)):
            found.setdefault(job, {})[needs] = State(state)
    return found


def _batches(
    numbers: list[int], condition: Callable[[list[int]], ColumnElement[bool]]
) -> Iterable[ColumnElement[bool]]:
    return (condition(numbers[start : start + _MOST]) for start in range(0, len(numbers), _MOST))


def _job(row: Row[Any], needed: Mapping[int, State]) -> Job:
    values = dict(row._mapping)
    del values["claim"]
    pid, host, slot, identity = (values.pop(name) for name in ("pid", "host", "slot", "identity"))
    try:
        values["config"] = _parsed(values["config"], dict)
        values["run_ids"] = tuple(_parsed(values["run_ids"], list))
        values["state"] = State(values["state"])
        values["request"] = None if values["request"] is None else Request(values["request"])
    except (TypeError, ValueError, RecursionError) as error:
        raise QueueError(
            f"the row of job {row.id} is damaged ({reason_of(error)}); restore the queue from a copy"
        ) from error
    owner = None if pid is None else Owner(host, pid, slot, identity)
    return Job(**values, depends_on=needed, owner=owner)


def _parsed(text: str, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__}, found a {type(value).__name__}")
    return value
