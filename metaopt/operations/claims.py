"""The queue for workers: claim a job, report its progress, and end it exactly once.

Every change holds only for one attempt of a running job. A process whose job was given to another one changes nothing.
"""

import itertools
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from .jobs import Job, Owner, Request, State
from .queue import JobQueue
from .rows import WorkerRow, one_job, read_jobs
from .schema import DEPENDENCIES, JOBS, WORKERS

_ENDED = {"claim": None, "request": None}
"""Values of a job that has left the state running."""


def _next_job() -> Select[Any]:
    """A query for the ID of the next job, given `now` and `latest` [s since 1970] and the names of `devices`."""
    now: BindParameter[Any] = bindparam("now")
    needed = JOBS.alias()
    waits = exists().where(
        (DEPENDENCIES.c.job == JOBS.c.id) & (DEPENDENCIES.c.needs == needed.c.id) & (needed.c.state != State.DONE)
    )
    # A pause after a crash that ends later than the longest one was written before a clock was set back.
    rested = or_(JOBS.c.retry_at.is_(None), JOBS.c.retry_at <= now, JOBS.c.retry_at > bindparam("latest"))
    due = or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now)
    fits = or_(JOBS.c.needs.is_(None), JOBS.c.needs.in_(bindparam("devices", expanding=True)))
    return (
        select(JOBS.c.id)
        .where((JOBS.c.state == State.QUEUED) & rested & due & fits & ~waits)
        .order_by(JOBS.c.priority.desc(), JOBS.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=JOBS)
    )


_NEXT = _next_job()


@dataclass(frozen=True)
class Beat:
    """The answer to a report of progress.

    Attributes:
        owned: whether the attempt still is the one that runs.
        request: what a person wants of it.
    """

    owned: bool
    request: Request | None = None


class Claims:
    """What workers and the processes of jobs do with a queue."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self._database = queue.database

    def claim(self, owner: Owner, device: str | None = None) -> Job | None:
        """Claim the next job, which is then running: the one of the highest priority, of equal ones the oldest.

        Args:
            owner: the worker.
            device: its device, such as `cuda:0`; None claims jobs without a requirement only.
        Returns: None if no job can run now.
        """
        token, tries = uuid.uuid4().hex, itertools.count()

        def change(connection: Connection) -> Job | None:
            if next(tries):  # the answer to the first try may have been lost with the connection
                own = (JOBS.c.claim == token) & (JOBS.c.state == State.RUNNING)
                if found := read_jobs(connection, select(JOBS).where(own)):
                    return found[0]
            now = time.time()
            place = {"now": now, "latest": now + self.queue.back_off.longest, "devices": _names(device)}
            number = connection.scalar(_NEXT, place)
            if number is None:
                return None
            values = {**vars(owner), "claim": token, "state": State.RUNNING, "request": None, "error": None}
            values |= {"attempt": JOBS.c.attempt + 1, "beat": 0, "steps": 0, "started": now, "ended": None}
            connection.execute(update(JOBS).where(JOBS.c.id == number).values(**values))
            return one_job(connection, number)

        return self._database.write(change, durable=False)

    def begin(self, job: Job, owner: Owner, log: str) -> bool:
        """Note the process that runs an attempt, and its log file.

        Returns: whether the attempt still is the one that runs.
        """
        return self._change(job, {**vars(owner), "log": log, "beat": JOBS.c.beat + 1})

    def beat(self, job: Job, steps: int | None) -> Beat:
        """Report finished steps, and ask for requests.

        Args:
            steps: finished steps of the attempt; None reports nothing, so that the lease runs on [count].
        """

        def change(connection: Connection) -> Beat:
            if steps is not None:
                connection.execute(_update(job).values(beat=JOBS.c.beat + 1, steps=steps))
            found = connection.execute(select(JOBS.c.request).where(_running(job))).first()
            return Beat(False) if found is None else Beat(True, None if found[0] is None else Request(found[0]))

        return self._database.read(change) if steps is None else self._database.write(change, durable=False)

    def add_run(self, job: Job, run_id: str) -> bool:
        """Note an MLflow run of an attempt.

        Returns: whether the attempt still is the one that runs.
        """

        def change(connection: Connection) -> bool:
            found = connection.execute(select(JOBS.c.run_ids).where(_running(job)).with_for_update()).scalar()
            if found is None:
                return False
            run_ids = json.loads(found)
            if run_id not in run_ids:
                connection.execute(_update(job).values(run_ids=json.dumps([*run_ids, run_id])))
            return True

        return self._database.write(change)

    def done(self, job: Job) -> bool:
        """End a job with success.

        Returns: whether it was this attempt that ended it.
        """
        return self._end(job, State.DONE)

    def failed(self, job: Job, error: str) -> bool:
        """End a job that another attempt would not help.

        Returns: whether it was this attempt that ended it.
        """
        return self._end(job, State.FAILED, error=error)

    def crashed(self, job: Job, error: str, beat: int | None = None) -> bool:
        """Queue a job again after a crash, with a pause; or end it after its last attempt, or as a person requested.

        Args:
            error: what happened.
            beat: only if this still is the number of its reports.
        Returns: whether it was this attempt that was running.
        """
        failures = job.failures + 1
        otherwise: dict[str, Any] = {"state": State.FAILED, "ended": time.time()}
        if failures < job.max_attempts:
            otherwise = {"state": State.QUEUED, "retry_at": time.time() + self.queue.back_off.delay(failures)}
        return self._leave(job, otherwise | {"failures": failures}, error, beat)

    def give_back(self, job: Job) -> bool:
        """Queue a job again whose worker ends, or end it as a person requested. It counts as no failure.

        Returns: whether it was this attempt that was running.
        """
        return self._leave(job, {"state": State.QUEUED, "retry_at": None})

    def _leave(self, job: Job, otherwise: dict[str, Any], error: str | None = None, beat: int | None = None) -> bool:
        """Follow the request of a person, or else change the job as given."""

        def change(connection: Connection) -> bool:
            found = connection.execute(
                select(JOBS.c.request, JOBS.c.beat).where(_running(job)).with_for_update()
            ).first()
            if found is None or beat not in (None, found.beat):
                return False
            requested = {} if found.request is None else {"state": Request(found.request).state, "ended": time.time()}
            values = {**_ENDED, "error": error, **(requested or otherwise)}
            connection.execute(_update(job).values(**values))
            return True

        return self._database.write(change)

    def running(self) -> list[Job]:
        """All running jobs."""
        return self.queue.jobs([State.RUNNING])

    def is_empty(self, device: str | None = None) -> bool:
        """Whether no job runs, and none can run on a device without a person: what is left is paused, or waits for it.

        Args:
            device: of the worker that asks, as for `claim`.
        """
        jobs = {job.id: job for job in self.queue.jobs([State.QUEUED, State.RUNNING, State.PAUSED])}
        stuck = {
            number
            for number, job in jobs.items()
            if job.state is State.PAUSED
            or job.blocked_by
            or (job.state is State.QUEUED and not suits(job.needs, device))
        }
        while more := {number for number, job in jobs.items() if number not in stuck and stuck & set(job.depends_on)}:
            stuck |= more
        return len(stuck) == len(jobs)

    def report_worker(self, worker: WorkerRow) -> None:
        """Write the row of a worker."""
        values = vars(worker)
        same = (WORKERS.c.host == worker.host) & (WORKERS.c.slot == worker.slot)

        def change(connection: Connection) -> None:
            if not connection.execute(update(WORKERS).where(same).values(**values)).rowcount:
                connection.execute(insert(WORKERS).values(**values))

        self._database.write(change, durable=False)

    def remove_worker(self, worker: WorkerRow) -> None:
        """Remove the row of a worker, unless another process has taken its slot."""
        same = (WORKERS.c.host == worker.host) & (WORKERS.c.slot == worker.slot) & (WORKERS.c.pid == worker.pid)
        self._database.write(lambda connection: connection.execute(delete(WORKERS).where(same)))

    def _end(self, job: Job, state: State, **values: Any) -> bool:
        return self._change(job, {**_ENDED, "state": state, "ended": time.time(), **values})

    def _change(self, job: Job, values: dict[str, Any]) -> bool:
        statement = _update(job).values(**values)
        return self._database.write(lambda connection: bool(connection.execute(statement).rowcount))


def suits(needs: str | None, device: str | None) -> bool:
    """Whether a worker on a device can run a job.

    Args:
        needs: what the job needs, such as `cuda`; None for nothing.
        device: of the worker, such as `cuda:0`.
    """
    return needs is None or needs in _names(device)


def _names(device: str | None) -> list[str]:
    return [] if device is None else [device, device.partition(":")[0]]


def _running(job: Job) -> ColumnElement[bool]:
    """Whether the attempt of a job is the one that runs."""
    return (JOBS.c.id == job.id) & (JOBS.c.attempt == job.attempt) & (JOBS.c.state == State.RUNNING)


def _update(job: Job) -> Update:
    return update(JOBS).where(_running(job))
