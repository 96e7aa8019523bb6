"""Speed of the queue: claims per second of several processes, and what the reports of a job cost its training.

Goals: 100 claims per second or more on two cores; reports make a step at most 0.5 % slower.
"""

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import torch

from metaopt.core.control import control
from metaopt.operations.claims import Claims
from metaopt.operations.jobs import Owner, State
from metaopt.operations.queue import JobQueue

from .._measure import publish
from .postgres import postgres

_SPAWN = multiprocessing.get_context("spawn")
_CONFIG = {"checkpoint": "optimizer.safetensors"}


def claim_all(url: str, process: int, ready: Any) -> None:
    """Claim jobs and end them until none is left, in a process of its own."""
    with JobQueue(url, patience=60.0) as queue:
        claims, owner = Claims(queue), Owner("host", process, f"slot {process}", None)
        ready.wait()
        while (job := claims.claim(owner)) is not None:
            assert claims.done(job)


def claims_per_second(url: str, jobs: int, processes: int) -> float:
    """Claimed and ended jobs per second of several processes [1/s]."""
    with JobQueue(url) as queue:
        for _ in range(jobs):
            queue.add("register", _CONFIG)
        ready = _SPAWN.Barrier(processes + 1)
        workers = [_SPAWN.Process(target=claim_all, args=(url, number, ready)) for number in range(processes)]
        for worker in workers:
            worker.start()
        ready.wait()
        start = time.perf_counter()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - start
        found = queue.jobs()
        assert all(job.state is State.DONE and job.attempt == 1 for job in found), "a job was not claimed once"
    return jobs / seconds


@contextmanager
def reporting(url: str, every: float) -> Iterator[None]:
    """Report the steps of this process during the block, as the process of a job does.

    Args:
        every: time between reports [s].
    """
    begun, over = threading.Event(), threading.Event()

    def report() -> None:
        with JobQueue(url) as queue:
            claims = Claims(queue)
            queue.add("register", _CONFIG)
            job = claims.claim(Owner("host", 1, "slot", None))
            assert job is not None
            begun.set()
            while not over.wait(every):
                claims.beat(job, control.steps)
            claims.done(job)

    thread = threading.Thread(target=report)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def train(steps: int) -> float:
    """Train a small network; returns the time of a step [ms]."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters())
    inputs, labels = torch.randn(64, 64), torch.randint(10, (64,))
    start = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        control.steps += 1
    return (time.process_time() - start) / steps * 1000


def cost_of_reports(url: str, steps: int, repeats: int) -> float:
    """Median ratio of the processor time of a training with reports to that of its twin without; they alternate."""
    train(steps)
    ratios = []
    for number in range(repeats):
        times = {}
        for with_reports in (True, False) if number % 2 else (False, True):
            with reporting(url, 1.0) if with_reports else nullcontext():
                times[with_reports] = train(steps)
        ratios.append(times[True] / times[False])
    return statistics.median(ratios)


@click.command()
@click.option("--jobs", default=1000, show_default=True, help="Jobs to claim [count].")
@click.option("--processes", default=2, show_default=True, help="Processes that claim [count].")
@click.option("--steps", default=10_000, show_default=True, help="Steps of each training.")
@click.option("--repeats", default=9, show_default=True, help="Pairs of trainings.")
@click.option("--database", type=click.Choice(["sqlite", "postgresql", "both"]), default="both", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the result.")
def main(jobs: int, processes: int, steps: int, repeats: int, database: str, output: Path | None) -> None:
    """Measure claims per second, and the cost of reports."""
    torch.set_num_threads(1)
    rows = []
    for kind in ["sqlite", "postgresql"] if database == "both" else [database]:
        with tempfile.TemporaryDirectory() as folder:
            server = postgres("queue") if kind == "postgresql" else nullcontext(f"sqlite:///{folder}")
            with server as place:
                url = f"{place}/queue" if kind == "postgresql" else f"{place}/queue.db"
                rate = claims_per_second(url, jobs, processes)
                ratio = cost_of_reports(url, steps, repeats)
        rows.append({"database": kind, "claims per second": rate, "step with reports": ratio})
    publish(f"{processes} processes claim and end {jobs} jobs; a job reports each second", rows, output)


if __name__ == "__main__":
    main()
