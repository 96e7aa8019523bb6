"""What the dashboard knows of the queue at one moment, and what has changed since."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from ..jobs import Job, State
from ..queue import JobQueue
from ..rows import WorkerRow, read_jobs
from ..schema import JOBS

SHOWN = 500
"""The most jobs of each kind on the page: running, waiting, ended [count]."""

_WAITING = (State.QUEUED, State.PAUSED)
_ENDED = (State.DONE, State.FAILED, State.SKIPPED, State.STOPPED)


@dataclass(frozen=True)
class Snapshot:
    """The queue at one moment.

    Attributes:
        jobs: those that run, then those that wait in the order of claims, then those that ended, the latest first.
        workers: by host and slot.
        counts: all jobs, also those that are not shown.
    """

    jobs: tuple[Job, ...] = ()
    workers: tuple[WorkerRow, ...] = ()
    counts: Mapping[State, int] = field(default_factory=dict)


def read_snapshot(queue: JobQueue) -> Snapshot:
    """Read the jobs to show, the workers and the number of jobs in each state.

    Raises:
        QueueError: the queue does not respond, or is damaged.
    """
    order = (JOBS.c.priority.desc(), JOBS.c.id)

    def read(connection: Connection) -> list[Job]:
        parts = (((State.RUNNING,), order), (_WAITING, order), (_ENDED, (JOBS.c.ended.desc(), JOBS.c.id.desc())))
        return [
            job
            for states, by in parts
            for job in read_jobs(connection, select(JOBS).where(JOBS.c.state.in_(states)).order_by(*by).limit(SHOWN))
        ]

    return Snapshot(tuple(queue.database.read(read)), tuple(queue.workers()), queue.counts())
