"""Jobs on workers that an executor starts: a real process of submitit, and a real task of Ray."""

import os
import subprocess
import sys

import pytest

from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue

TRAINING = {"target_model": "MLP", "target_options": {"widths": [8]}, "epochs": 1, "batch_size": 64}
WITHIN = 300.0  # a busy machine imports torch and MLflow for minutes [s]


def run_jobs(folder, executor, *flags):
    """Run two jobs in a process of the command; returns them with its messages."""
    with JobQueue("queue.db") as queue:
        for number in range(2):
            queue.add("train-target", {"run_name": f"job_{number}", **TRAINING})
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
        words = ["worker", "--poll", "0.1", "--executor", executor, *flags]
        command = [sys.executable, "-m", "metaopt.cli", *words]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN)
        assert ended.returncode == 0, ended.stderr
        return queue.jobs(), ended


def test_jobs_run_on_workers_that_submitit_starts(store):
    pytest.importorskip("submitit")
    jobs, ended = run_jobs(store, "local")
    assert [(job.state, job.attempt) for job in jobs] == 2 * [(State.DONE, 1)], ended.stderr
    assert "after 2 attempts" in ended.stdout
    slots = {job.owner.slot for job in jobs}
    assert all(slot.startswith("job ") for slot in slots), slots
    assert (store / "trajectories" / "job_1" / "seed_0").is_dir()


@pytest.mark.slow  # a local Ray takes half a minute to start and to end
def test_jobs_run_on_workers_of_ray(store):
    pytest.importorskip("ray")
    jobs, ended = run_jobs(store, "ray", "--executor-options", "num_cpus=0.5", "--slot", "night")
    assert [(job.state, job.attempt) for job in jobs] == 2 * [(State.DONE, 1)], ended.stderr
    assert all(job.owner.slot.startswith("night task ") for job in jobs)
