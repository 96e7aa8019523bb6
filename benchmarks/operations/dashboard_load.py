"""Load of the dashboard: clients for a minute, of pages, the JSON API and streams of events, on one server process.

Goal: 50 clients and 300 jobs; the 99th percentile of latencies at most 200 ms, and memory that does not grow.
"""

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click

from metaopt.operations.claims import Claims
from metaopt.operations.jobs import Job, JobOptions, Owner
from metaopt.operations.queue import JobQueue

TOKEN = "a-token-for-this-benchmark-only"
PATHS = ("/", "/api/queue", "/api/queue/{id}", "/api/queue/{id}/log", "/api/workers", "/api/disk", "/api/health")
THINKING = (0.2, 1.0)  # of a client between two requests, at least and at most [s]
STREAMS = 0.3  # share of the clients that also hold a stream of events open, as each page does
CHANGES = 0.5  # time between two changes of the queue [s]


@dataclass
class Measured:
    """What all clients have seen.

    Attributes:
        latencies: of each kind of request, until its last byte [s].
        events: received by streams [count].
        failures: requests with another status than 200 or 409, or without an answer [count].
    """

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    events: int = 0
    failures: int = 0


def fill(queue: JobQueue, jobs: int) -> list[Job]:
    """Add jobs; two thirds have ended, three run. Returns those that run."""
    training = {"run_name": "mlp", "target_model": "MLP", "runs": 4, "epochs": 2}
    for number in range(jobs):
        queue.add("train-target", training, JobOptions(name=f"digits-mlp-{number}", priority=number % 3))
    claims, owner = Claims(queue), Owner("box", os.getpid(), "slot", None)
    for number in range(2 * jobs // 3):
        job = claims.claim(owner)
        assert job is not None
        claims.failed(job, "Diverged: the loss is not finite; lower --lr") if number % 20 == 7 else claims.done(job)
    found = [claims.claim(owner) for _ in range(3)]
    return [job for job in found if job is not None]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a dashboard of the queue in a folder; gives the number of its process, and its port."""
    command = [sys.executable, "-m", "metaopt.cli", "dashboard", "--port", "0"]
    environment = {**os.environ, "METAOPT_DASHBOARD_TOKEN": TOKEN, "PYTHONPATH": str(Path.cwd())}
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = next((each for each in server.stderr if "listens at" in each), None)
        if line is None:
            raise click.ClickException("the dashboard did not start; run `metaopt dashboard` to see why")
        yield server.pid, urlsplit(line.split()[-1]).port or 0
    finally:
        server.terminate()
        server.communicate()


def resident(pid: int) -> float:
    """Memory of a process [MB]."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 10**6


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, float]:
    """Send a request on a connection of its own; returns the status, and the time until its last byte [s]."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), time.perf_counter() - began


async def browse(port: int, jobs: int, end: float, measured: Measured, dice: random.Random) -> None:
    """Ask for one thing after the other, with pauses."""
    await asyncio.sleep(dice.uniform(0, THINKING[1]))  # clients do not begin at the same moment
    while time.monotonic() < end:
        kind, method = dice.choice(PATHS), "GET"
        if dice.random() < 0.05:
            kind, method = dice.choice(("/api/queue/{id}/pause", "/api/queue/{id}/resume")), "POST"
        try:
            status, seconds = await ask(port, kind.replace("{id}", str(dice.randint(1, jobs))), method)
            measured.latencies[kind].append(seconds)
            measured.failures += status not in (200, 409)
        except (OSError, ValueError, IndexError):
            measured.failures += 1
        await asyncio.sleep(dice.uniform(*THINKING))


async def listen(port: int, end: float, measured: Measured) -> None:
    """Hold a stream of events open, and count them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        async with asyncio.timeout(end - time.monotonic()):
            while line := await reader.readline():
                measured.events += line.startswith(b"data: ")
        measured.failures += 1  # the server has ended the stream
    except TimeoutError:
        pass
    finally:
        writer.close()


async def train(queue: JobQueue, running: list[Job], end: float) -> None:
    """Report steps of the running jobs, as workers do."""
    claims, steps = Claims(queue), 0
    while time.monotonic() < end:
        steps += 1
        for job in running:
            await asyncio.to_thread(claims.beat, job, steps)
        await asyncio.sleep(CHANGES)


async def load(port: int, queue: JobQueue, running: list[Job], clients: int, jobs: int, seconds: float) -> Measured:
    """Let all clients ask at the same time."""
    measured, end = Measured(), time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(train(queue, running, end))
        for number in range(clients):
            tasks.create_task(browse(port, jobs, end, measured, random.Random(number)))
            if number < STREAMS * clients:
                tasks.create_task(listen(port, end, measured))
    return measured


def percentile(values: list[float], share: float) -> float:
    """A percentile of durations [ms]."""
    ordered = sorted(values)
    return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@click.command()
@click.option("--clients", default=50, show_default=True, help="Clients at the same time [count].")
@click.option("--seconds", default=60.0, show_default=True, help="Duration [s].")
@click.option("--jobs", default=300, show_default=True, help="Jobs in the queue [count].")
def main(clients: int, seconds: float, jobs: int) -> None:
    """Measure the latency and the memory of the dashboard under load."""
    with tempfile.TemporaryDirectory() as name, JobQueue(f"{name}/queue.db") as queue:
        running = fill(queue, jobs)
        with serving(Path(name)) as (pid, port):
            asyncio.run(load(port, queue, running, clients, jobs, min(3.0, seconds)))  # warms caches up
            before = resident(pid)
            measured = asyncio.run(load(port, queue, running, clients, jobs, seconds))
            after = resident(pid)
    for kind, found in sorted(measured.latencies.items()):
        click.echo(f"{kind:24} {len(found):6,} requests, p50 {percentile(found, 0.5):6.1f} ms, p99 "
                   f"{percentile(found, 0.99):6.1f} ms")  # fmt: skip
    every = [each for found in measured.latencies.values() for each in found]
    click.echo(f"{'all':24} {len(every):6,} requests, p50 {percentile(every, 0.5):6.1f} ms, p99 "
               f"{percentile(every, 0.99):6.1f} ms; goal: p99 at most 200 ms")  # fmt: skip
    click.echo(f"{measured.events:,} events, {measured.failures} failures")
    click.echo(f"memory of the server: {before:.1f} MB at the start, {after:.1f} MB at the end")


if __name__ == "__main__":
    main()
