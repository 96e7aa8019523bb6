"""What tests of the dashboard share: a queue with a job in each state, and a worker that only counts steps."""

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from metaopt.operations.claims import Claims
from metaopt.operations.jobs import JobOptions, Owner, Request, State
from metaopt.operations.queue import JobQueue
from metaopt.operations.rows import WorkerRow

TOKEN = "correct-horse-battery-staple"
SCRIPT = "<script>alert('x')</script>"
ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"http://\S+#token=\S+")
START = 60.0  # for the server to listen [s]; it takes 2 on an idle machine
TRAINING = {"run_name": "mlp", "target_model": "MLP", "runs": 1, "epochs": 1}


def owner(slot="slot"):
    return Owner("box", os.getpid(), slot, None)


def add(queue, name, **options):
    return queue.add("train-target", TRAINING, JobOptions(name=name, **options))


def job_in_each_state(queue) -> dict[State, int]:
    """Add a job in each state; returns their IDs."""
    claims = Claims(queue)
    ids = {}
    for state in (State.DONE, State.FAILED, State.STOPPED, State.SKIPPED, State.RUNNING):
        ids[state] = add(queue, f"{state} job").id
        job = claims.claim(owner())
        assert job.id == ids[state]
        if state is State.DONE:
            claims.done(job)
        if state is State.FAILED:
            claims.failed(job, f"InvalidConfig: {SCRIPT}; expected another name")
        if state in (State.STOPPED, State.SKIPPED):
            (queue.stop if state is State.STOPPED else queue.skip)(job.id)
            claims.give_back(job)
    ids[State.PAUSED] = queue.pause(add(queue, SCRIPT).id).id
    ids[State.QUEUED] = add(queue, "last", after=(ids[State.PAUSED],)).id
    return ids


@contextmanager
def counting_worker(url, log):
    """A worker that claims jobs and counts steps until somebody wants something of them.

    Args:
        log: file that its jobs write.
    """
    ended = threading.Event()

    def report(claims, job):
        row = WorkerRow("box", "slot", os.getpid(), None, "cuda:0", job and job.id, 1, time.time(), time.time())
        claims.report_worker(row)

    def run(claims, job):
        claims.begin(job, owner(), str(log))
        log.write_text("MLP on digits, 1 run\n", encoding="utf-8")
        for step in range(1, 10**6):
            report(claims, job)
            request = claims.beat(job, step).request
            if request is not None or ended.wait(0.1):
                claims.give_back(job)
                return request
        return None

    def work():
        with JobQueue(url) as queue:
            claims = Claims(queue)
            while not ended.is_set():
                job = claims.claim(owner())
                if job is not None and run(claims, job) is Request.STOP:
                    continue
                report(claims, None)
                ended.wait(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def served(folder, *flags):
    """Run `metaopt dashboard` in a folder; yields its process and its address with the token."""
    command = [sys.executable, "-m", "metaopt.cli", "dashboard", "--port", "0", *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "METAOPT_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "METAOPT_DASHBOARD_TOKEN": TOKEN}
    with (folder / "dashboard.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START
        while (found := ADDRESS.search((folder / "dashboard.log").read_text())) is None:
            assert process.poll() is None, (folder / "dashboard.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
