"""Jobs and workers that are killed at random: each job must be done once, with the weights of an undisturbed training.

Goal: of 300 jobs on 3 workers all are done exactly once, bit for bit as without kills, on SQLite and on PostgreSQL.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from metaopt.core.tracker import SilentTracker
from metaopt.operations.jobs import Job, JobOptions, State
from metaopt.operations.queue import JobQueue
from metaopt.recording.record import TrainTargetConfig, train_targets

from .._measure import publish
from .postgres import postgres

TRAINING: Mapping[str, Any] = {
    "target_model": "MLP",
    "target_options": {"widths": [8]},
    "batch_size": 32,
    "epochs": 8,
    "snapshot_every": 10,
    "checkpoint_every": 2,
}
"""A training of a second or less; the random seed is the number of its job."""

_POLL = 0.2  # between looks at the queue [s]


@dataclass
class Storm:
    """Workers on a queue, and what was killed.

    Attributes:
        folder: working folder of workers and jobs.
        url: of the queue.
        flags: of the workers, beside those of all storms.
        environment: variables of the workers.
        kills: number of killed processes by kind.
    """

    folder: Path
    url: str
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=lambda: {"worker": 0, "job": 0})

    def start(self, slot: int) -> None:
        """Start the worker of a slot."""
        words = ["worker", "--queue", self.url, "--slot", f"slot {slot}", "--log-dir", self.folder / "logs"]
        words += ["--poll", "0.2", "--beat", "0.2", "--first-pause", "0.1", "--longest-pause", "1", *self.flags]
        cache = self.folder / "cache"
        with (self.folder / f"worker_{slot}.log").open("ab") as log:
            self.workers[slot] = subprocess.Popen(
                [sys.executable, "-m", "metaopt.cli", *map(str, words)],
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache), **self.environment},
                stdout=log,
                stderr=log,
            )

    def kill(self, draw: random.Random, queue: JobQueue, share: float) -> None:
        """Kill a worker, which is started again, or the process of a running job.

        Args:
            share: probability that it is a worker.
        """
        if draw.random() < share:
            slot = draw.choice([*self.workers])
            self.workers[slot].kill()
            self.workers[slot].wait()
            self.kills["worker"] += 1
            self.start(slot)
            return
        workers = {each.pid for each in self.workers.values()}
        owners = [job.owner for job in queue.jobs([State.RUNNING])]
        if pids := [owner.pid for owner in owners if owner is not None and owner.pid not in workers]:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(pids), signal.SIGKILL)
                self.kills["job"] += 1

    def end(self) -> None:
        """End all workers, as systemd would."""
        for process in self.workers.values():
            process.terminate()
        for process in self.workers.values():
            process.wait(timeout=180)


def run_storm(
    folder: Path, url: str, jobs: int, workers: int, kill_every: float, share: float, limit: float, seed: int
) -> dict[str, Any]:
    """Run jobs under kills, and compare them with undisturbed trainings.

    Args:
        jobs, workers: numbers of them [count].
        kill_every: mean time between two kills [s].
        share: probability that a worker is killed rather than a job.
        limit: time after which it is given up [s].
        seed: random seed of the kills.
    Returns: counts, and the time that it took [s].
    """
    draw, started = random.Random(seed), time.monotonic()
    storm = Storm(folder, url)
    with JobQueue(url, patience=60.0) as queue:
        add_jobs(queue, folder, jobs)
        for slot in range(workers):
            storm.start(slot)
        next_kill = time.monotonic() + draw.expovariate(1 / kill_every)
        try:
            while queue.counts()[State.DONE] < jobs and time.monotonic() - started < limit:
                time.sleep(_POLL)
                if time.monotonic() >= next_kill:
                    storm.kill(draw, queue, share)
                    next_kill = time.monotonic() + draw.expovariate(1 / kill_every)
        finally:
            storm.end()
        seconds = time.monotonic() - started
        found = queue.jobs()
    return {
        **ends_of(folder, found),
        **{f"killed {kind}s": count for kind, count in storm.kills.items()},
        "seconds": round(seconds, 1),
    }


def add_jobs(queue: JobQueue, folder: Path, jobs: int) -> None:
    """Add trainings, each with a random seed of its own."""
    for number in range(jobs):
        config = {**TRAINING, "run_name": f"job_{number}", "seed": number}
        queue.add("train-target", config, JobOptions(max_attempts=1000, folder=folder, lease=60.0))


def ends_of(folder: Path, found: Sequence[Job]) -> dict[str, int]:
    """Count jobs of `add_jobs` by how they ended, beside the trainings of `record_undisturbed`."""
    return {
        "jobs": len(found),
        "done": sum(job.state is State.DONE for job in found),
        "done twice": sum(_times_done(folder, job.id) > 1 for job in found),
        "equal weights": sum(_is_equal(folder, number) for number in range(len(found))),
        "attempts": sum(job.attempt for job in found),
    }


def check_ends(rows: Sequence[Mapping[str, Any]]) -> None:
    """Fail unless each job is done once with the right weights.

    Args:
        rows: counts of `ends_of`.
    """
    if any(each[name] != each["jobs"] for each in rows for name in ("done", "equal weights")):
        raise click.ClickException("not every job is done with the weights of an undisturbed training")
    if any(each["done twice"] for each in rows):
        raise click.ClickException("a job is done twice")


def record_undisturbed(folder: Path, jobs: int) -> None:
    """Record the same trainings without a queue."""
    config = TrainTargetConfig(
        **TRAINING,
        run_name="undisturbed",
        runs=jobs,
        trajectory_dir=folder / "trajectories",
        checkpoint_dir=folder / "checkpoints",
    )
    train_targets(config, SilentTracker())


def _times_done(folder: Path, job: int) -> int:
    logs = (folder / "logs" / str(job)).glob("*.log")
    return sum(log.read_text(encoding="utf-8", errors="replace").count(f"job {job} is done") for log in logs)


def _is_equal(folder: Path, number: int) -> bool:
    """Whether all snapshots of a job are those of the undisturbed training, byte for byte."""
    expected, found = (folder / "trajectories" / name / f"seed_{number}" for name in ("undisturbed", f"job_{number}"))
    names = {path.name for path in expected.glob("step_*.safetensors")}
    return names == {path.name for path in found.glob("step_*.safetensors")} and all(
        (expected / name).read_bytes() == (found / name).read_bytes() for name in names
    )


@contextmanager
def _queue_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'queue.db'}"
        return
    with postgres("queue") as url:
        yield f"{url}/queue"


@click.command()
@click.option("--jobs", default=300, show_default=True, help="Jobs, each a training of about a second [count].")
@click.option("--workers", default=3, show_default=True, help="Workers at the same time [count].")
@click.option("--database", type=click.Choice(["sqlite", "postgresql", "both"]), default="both", show_default=True)
@click.option("--kill-every", default=6.0, show_default=True, help="Mean time between two kills [s].")
@click.option("--worker-share", default=0.1, show_default=True, help="Share of the kills that hit workers.")
@click.option("--limit", default=3600.0, show_default=True, help="Time for each database [s].")
@click.option("--seed", default=0, show_default=True, help="Random seed of the kills.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the result.")
def main(
    jobs: int,
    workers: int,
    database: str,
    kill_every: float,
    worker_share: float,
    limit: float,
    seed: int,
    output: Path | None,
) -> None:
    """Kill workers and jobs at random, and check that each job is done once with the right weights."""
    rows: list[dict[str, Any]] = []
    for kind in ["sqlite", "postgresql"] if database == "both" else [database]:
        with tempfile.TemporaryDirectory() as temporary, _queue_url(kind, Path(temporary)) as url:
            folder = Path(temporary)
            record_undisturbed(folder, jobs)
            measured = run_storm(folder, url, jobs, workers, kill_every, worker_share, limit, seed)
            rows.append({"database": kind, **measured})
    publish(f"jobs on {workers} workers under random kills", rows, output)
    check_ends(rows)


if __name__ == "__main__":
    main()
