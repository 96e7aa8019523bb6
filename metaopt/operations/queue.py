"""The queue for people: add jobs, look at them, and steer them. `claims` is its side for workers.

from metaopt.operations.jobs import JobOptions
from metaopt.operations.queue import JobQueue

with JobQueue("sqlite:///queue.db") as queue:
    recorded = queue.add("train-target", {"run_name": "mlp", "target_model": "MLP", "runs": 4, "epochs": 2})
    queue.add("train-optimizer", {"run_name": "mlp", "epochs": 1}, JobOptions(after=(recorded.id,), priority=1))
    for job in queue.jobs():
        print(job.id, job.state, job.name, job.waits)
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, delete, func, insert, select, update

from ..core.errors import IllegalTransition, JobError
from .back_off import BackOff
from .database import Database, queue_url
from .jobs import METAOPT, UNSUCCESSFUL, Job, JobOptions, Request, State, check_transition
from .rows import WorkerRow, one_job, read_jobs, read_workers
from .schema import DEPENDENCIES, JOBS
from .workflow_table import checked_config


class JobQueue:
    """A queue of jobs in a table of SQLite or PostgreSQL. Several processes and machines can use it at the same time.

    Args:
        url: of the database; the default of `queue_url` if None.
        create: make the queue if it does not exist.
        patience: time to try again while the database does not respond [s].
        back_off: how long jobs wait after a crash.
    Raises:
        QueueError: the queue does not exist, does not respond, is damaged, or is of a newer metaopt.
        InvalidConfig: the package for PostgreSQL is missing.
    """

    def __init__(
        self, url: str | None = None, *, create: bool = True, patience: float = 0.0, back_off: BackOff | None = None
    ) -> None:
        self.database = Database(queue_url(url), create=create, patience=patience)
        self.back_off = back_off or BackOff()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    def add(self, workflow: str, config: Mapping[str, Any], options: JobOptions | None = None) -> Job:
        """Add a job. Nothing is stored if it is refused.

        Args:
            workflow: name of a command, such as `train-target`.
            config: parameters of the command; its defaults for the others.
            options: how it is queued.
        Raises:
            UnknownName: jobs cannot run this workflow.
            InvalidConfig: a parameter is unknown or invalid.
            JobError: it depends on a job that does not exist.
        """
        options = options or JobOptions()
        checked = checked_config(workflow, config)
        values = {
            "name": options.name or str(checked.get("run_name") or workflow),
            "workflow": workflow,
            "config": json.dumps(checked),
            "folder": str((options.folder or Path()).absolute()),
            "state": State.QUEUED,
            "priority": options.priority,
            "max_attempts": options.max_attempts,
            "not_before": options.start,
            "lease": options.lease,
            "needs": options.needs,
            "version": METAOPT,
            "created": time.time(),
        }

        def store(connection: Connection) -> Job:
            needed = _existing(connection, options.after)
            number = connection.execute(insert(JOBS).values(values)).inserted_primary_key[0]  # type: ignore[index]
            _store_dependencies(connection, number, needed)
            return one_job(connection, number)

        return self.database.write(store)

    def get(self, number: int) -> Job:
        """The job of an ID.

        Raises:
            JobError: there is none.
        """
        return self.database.read(lambda connection: one_job(connection, number))

    def jobs(self, states: Collection[State] = ()) -> list[Job]:
        """All jobs, or those in some states, in the order in which they would be claimed.

        Args:
            states: all if empty.
        """
        query = select(JOBS).order_by(JOBS.c.priority.desc(), JOBS.c.id)
        query = query.where(JOBS.c.state.in_([*states])) if states else query
        return self.database.read(lambda connection: read_jobs(connection, query))

    def counts(self) -> dict[State, int]:
        """The number of jobs in each state."""
        query = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
        found = self.database.read(lambda connection: {row[0]: row[1] for row in connection.execute(query)})
        return {state: found.get(state, 0) for state in State}

    def workers(self) -> list[WorkerRow]:
        """The workers that run, and those that were killed and not replaced."""
        return self.database.read(read_workers)

    def pause(self, number: int) -> Job:
        """Pause a job: a running one finishes its step, writes a checkpoint and keeps it for `resume`.

        Raises:
            JobError: there is no such job.
            IllegalTransition: it has ended.
        """
        return self._request(number, Request.PAUSE)

    def stop(self, number: int) -> Job:
        """Stop a job for good: a running one finishes its step and writes a checkpoint. `retry` queues it again.

        Raises:
            JobError: there is no such job.
            IllegalTransition: it has ended.
        """
        return self._request(number, Request.STOP)

    def skip(self, number: int) -> Job:
        """Leave a job out, as `stop` does: the name of its state says that it is not missed.

        Raises:
            JobError: there is no such job.
            IllegalTransition: it has ended.
        """
        return self._request(number, Request.SKIP)

    def resume(self, number: int) -> Job:
        """Queue a paused job again, or take back the request to pause a running one.

        Raises:
            JobError: there is no such job.
            IllegalTransition: it is neither paused nor asked to pause.
        """

        def change(connection: Connection) -> Job:
            job = one_job(connection, number, lock=True)
            if job.state is State.RUNNING and job.request is Request.PAUSE:
                return _set(connection, job, {"request": None})
            if job.state is not State.PAUSED:
                raise IllegalTransition(f"job {number} is {job.state}; expected a paused job, or use `retry`")
            return _set(connection, job, {"state": State.QUEUED, "retry_at": None})

        return self.database.write(change)

    def retry(self, number: int) -> Job:
        """Queue a job again that failed, was stopped or was skipped. It resumes from its last checkpoint.

        Raises:
            JobError: there is no such job.
            IllegalTransition: it has not ended, or is done.
        """

        def change(connection: Connection) -> Job:
            job = one_job(connection, number, lock=True)
            if job.state not in UNSUCCESSFUL:
                names = ", ".join(sorted(UNSUCCESSFUL))
                raise IllegalTransition(f"job {number} is {job.state}; expected one that is {names}")
            return _set(connection, job, {"state": State.QUEUED, "failures": 0, "retry_at": None, "error": None})

        return self.database.write(change)

    def move(self, number: int, priority: int | None = None, after: Iterable[int] | None = None) -> Job:
        """Change the place of a job in the queue.

        Args:
            priority: its new priority; the old one if None.
            after: IDs of all jobs that must be done before; the old ones if None.
        Raises:
            JobError: there is no such job, it has begun, or it would wait for itself.
            InvalidConfig: the priority is out of range.
        """
        checked = JobOptions(priority=priority or 0, after=tuple(after or ()))

        def change(connection: Connection) -> Job:
            job = one_job(connection, number, lock=True)
            if job.state not in (State.QUEUED, State.PAUSED):
                raise JobError(f"job {number} is {job.state}; expected a queued or paused job")
            if after is not None:
                needed = _existing(connection, checked.after)
                _refuse_cycle(connection, number, needed)
                connection.execute(delete(DEPENDENCIES).where(DEPENDENCIES.c.job == number))
                _store_dependencies(connection, number, needed)
            return _set(connection, job, {"priority": job.priority if priority is None else checked.priority})

        return self.database.write(change)

    def _request(self, number: int, request: Request) -> Job:
        def change(connection: Connection) -> Job:
            job = one_job(connection, number, lock=True)
            check_transition(number, job.state, request.state)
            if job.state is State.RUNNING:
                return _set(connection, job, {"request": request})
            return _set(connection, job, {"state": request.state, "retry_at": None, "ended": time.time()})

        return self.database.write(change)


def _set(connection: Connection, job: Job, values: Mapping[str, Any]) -> Job:
    """Change a job if it is still in the same state and attempt."""
    same = (JOBS.c.id == job.id) & (JOBS.c.state == job.state) & (JOBS.c.attempt == job.attempt)
    connection.execute(update(JOBS).where(same).values(**values))
    return one_job(connection, job.id)


def _existing(connection: Connection, numbers: Iterable[int]) -> list[int]:
    wanted = sorted(set(numbers))
    found = set(connection.execute(select(JOBS.c.id).where(JOBS.c.id.in_(wanted))).scalars())
    if missing := [number for number in wanted if number not in found]:
        raise JobError(f"there is no job {', '.join(map(str, missing))} to wait for; `metaopt queue list` shows all")
    return wanted


def _store_dependencies(connection: Connection, job: int, needed: Collection[int]) -> None:
    if needed:
        connection.execute(insert(DEPENDENCIES), [{"job": job, "needs": each} for each in needed])


def _refuse_cycle(connection: Connection, job: int, needed: Iterable[int]) -> None:
    """Raise if one of some jobs waits for a job, or for one that does."""
    edges: dict[int, list[int]] = {}
    for waiting, needs in connection.execute(select(DEPENDENCIES)):
        edges.setdefault(waiting, []).append(needs)
    paths = [[job, each] for each in needed]
    seen: set[int] = set()
    while paths:
        path = paths.pop()
        if path[-1] == job:
            raise JobError(f"job {job} would wait for itself: {' after '.join(map(str, path))}; leave one of them out")
        if path[-1] not in seen:
            seen.add(path[-1])
            paths += [[*path, each] for each in edges.get(path[-1], ())]
