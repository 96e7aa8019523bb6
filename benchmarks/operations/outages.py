"""Outages in the middle of jobs: each job must be done once, with the weights of an undisturbed training.

- PostgreSQL is restarted, and is away for some seconds.
- The clock is set back by an hour, while a job rests after a crash.
- The disk is full whenever a sidecar of the ledger is to be written.

Only the workers and their jobs see that clock and that disk: Python imports a module first that changes two functions.

Goal: all jobs are done exactly once, bit for bit as without an outage, and each outage reaches some of them.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from metaopt.operations.jobs import Job, State
from metaopt.operations.queue import JobQueue

from .._measure import publish
from .postgres import PostgresServer
from .storm import Storm, add_jobs, check_ends, ends_of, record_undisturbed

_POLL = 0.05  # between looks at the queue [s]
_AWAY = 5.0  # of the database [s]
_REST = 60.0  # of a job after a crash, which a clock that is set back must not lengthen [s]

_FAULTS = """
import errno, os, time

_folder, _time, _replace = os.path.dirname(__file__), time.time, os.replace


def _set_back():
    return _time() - 3600.0 * os.path.exists(os.path.join(_folder, "clock"))


def _full(source, target, **options):
    if str(target).endswith(".safetensors.json") and os.path.exists(os.path.join(_folder, "disk")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    return _replace(source, target, **options)


time.time, os.replace = _set_back, _full
"""
"""The module `sitecustomize`, which Python imports at its start. An empty file beside it begins a fault."""


@dataclass(frozen=True)
class Outage:
    """An outage that is ready to begin.

    Attributes:
        url: of the queue.
        strike: lets it happen; returns when jobs could go on.
        reached: whether it had an effect on an ended job.
        flags, environment: of the workers.
    """

    url: str
    strike: Callable[[JobQueue, Storm], None]
    reached: Callable[[Job], bool]
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def postgres_restarted(folder: Path) -> Iterator[Outage]:
    """A server that is stopped, and started again with the same data.

    Raises:
        PostgresMissing: it cannot run here.
    """
    with ExitStack() as stack, ExitStack() as server_stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # other users can enter it
        server = PostgresServer(data)
        server_stack.enter_context(server.running())
        server.make_databases(["queue"])

        def strike(queue: JobQueue, storm: Storm) -> None:
            server_stack.close()
            time.sleep(_AWAY)
            server_stack.enter_context(server.running())

        yield Outage(f"{server.url}/queue", strike, lambda job: "does not respond" in _messages(job))


@contextmanager
def clock_set_back(folder: Path) -> Iterator[Outage]:
    """A clock that is set back by an hour while a job rests."""
    faults = _faults(folder)

    def strike(queue: JobQueue, storm: Storm) -> None:
        while not storm.kills["job"]:  # the process that was chosen may have ended
            storm.kill(random.Random(0), queue, share=0.0)
            time.sleep(_POLL)
        wait_for(lambda: [job for job in queue.jobs([State.QUEUED]) if job.failures])
        (faults / "clock").touch()

    yield Outage(
        f"sqlite:///{folder / 'queue.db'}",
        strike,
        lambda job: job.ended is not None and job.ended < job.created,
        ["--first-pause", str(_REST), "--longest-pause", str(_REST)],
        _first(faults),
    )


@contextmanager
def disk_full(folder: Path) -> Iterator[Outage]:
    """A disk that has no room for sidecars of the ledger from some moment on."""
    faults = _faults(folder)
    yield Outage(
        f"sqlite:///{folder / 'queue.db'}",
        lambda queue, storm: (faults / "disk").touch(),
        lambda job: "gets no ledger entry" in _messages(job),
        environment=_first(faults),
    )


OUTAGES: Mapping[str, Callable[[Path], AbstractContextManager[Outage]]] = {
    "PostgreSQL restarted": postgres_restarted,
    "clock set back": clock_set_back,
    "disk full for the ledger": disk_full,
}
"""Each outage, by the name of its row."""


def run_outage(name: str, folder: Path, jobs: int, workers: int, limit: float) -> dict[str, Any]:
    """Run jobs through an outage, and compare them with undisturbed trainings.

    Args:
        name: of the outage.
        folder: empty folder of workers and jobs.
        jobs, workers: numbers of them [count].
        limit: time after which it is given up [s].
    Returns: counts, and the time that it took [s].
    """
    record_undisturbed(folder, jobs)
    with OUTAGES[name](folder) as outage, JobQueue(outage.url, patience=60.0) as queue:
        add_jobs(queue, folder, jobs)
        storm, started = Storm(folder, outage.url, outage.flags, outage.environment), time.monotonic()
        try:
            for slot in range(workers):
                storm.start(slot)
            wait_for(lambda: [job for job in queue.jobs([State.RUNNING]) if job.steps], limit)
            outage.strike(queue, storm)
            wait_for(lambda: queue.counts()[State.DONE] == jobs, limit)
        finally:
            storm.end()
        seconds = time.monotonic() - started
        found = queue.jobs()
    reached = sum(map(outage.reached, found))
    return {"outage": name, **ends_of(folder, found), "reached": reached, "seconds": round(seconds, 1)}


def wait_for(condition: Callable[[], object], limit: float = 60.0) -> None:
    """Wait until a condition holds, or until the time is over [s]."""
    end = time.monotonic() + limit
    while not condition() and time.monotonic() < end:
        time.sleep(_POLL)


def _faults(folder: Path) -> Path:
    """A folder whose module changes the clock and the disk."""
    made = folder / "faults"
    made.mkdir()
    (made / "sitecustomize.py").write_text(_FAULTS, encoding="utf-8")
    return made


def _first(folder: Path) -> dict[str, str]:
    """The variable that makes Python look into a folder first."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def _messages(job: Job) -> str:
    """The messages of all attempts of a job."""
    logs = Path(job.log).parent.glob("*.log") if job.log else ()
    return "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)


@click.command()
@click.option("--jobs", default=20, show_default=True, help="Jobs, each a training of about a second [count].")
@click.option("--workers", default=2, show_default=True, help="Workers at the same time [count].")
@click.option("--only", type=click.Choice([*OUTAGES]), multiple=True, help="Only these outages; repeatable.")
@click.option("--limit", default=1800.0, show_default=True, help="Time for each outage [s].")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the result.")
def main(jobs: int, workers: int, only: Sequence[str], limit: float, output: Path | None) -> None:
    """Let outages happen while jobs run, and check that each job is done once with the right weights."""
    rows = []
    for name in only or OUTAGES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run_outage(name, Path(folder), jobs, workers, limit))
    publish(f"jobs on {workers} workers through an outage", rows, output)
    check_ends(rows)
    if missed := [row["outage"] for row in rows if not row["reached"]]:
        raise click.ClickException(f"no job noticed: {', '.join(missed)}; give more --jobs")


if __name__ == "__main__":
    main()
