"""Real workers with real trainings: paused, killed and resumed to the bytes of an undisturbed training."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from metaopt.core.tracker import SilentTracker
from metaopt.operations.jobs import JobOptions, State
from metaopt.operations.queue import JobQueue
from metaopt.operations.resuming import resumed
from metaopt.recording.record import TrainTargetConfig, train_targets

TRAINING = {"target_model": "MLP", "target_options": {"widths": [8]}, "epochs": 10, "batch_size": 16,
            "snapshot_every": 20, "checkpoint_every": 3}  # fmt: skip
WITHIN = 300.0  # a busy machine imports torch and MLflow for minutes [s]
QUICK = ["--poll", "0.05", "--beat", "0.05", "--first-pause", "0", "--longest-pause", "0"]


def wait_for(condition, *workers):
    """Return what a function finds, when it finds something."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        if found := condition():
            return found
        for worker in workers:
            assert worker.poll() is None, worker.stderr.read()
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@contextmanager
def worker(folder, *flags):
    """A worker in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "metaopt.cli", "worker", "--quiet", *QUICK, *flags]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def queue(store):
    with JobQueue("queue.db") as opened:
        yield opened


def steps(queue, number, attempt):
    """The steps of an attempt, once it has finished some."""
    job = queue.get(number)
    return job.state is State.RUNNING and job.attempt == attempt and job.steps


def test_a_job_survives_a_pause_and_kills_of_itself_and_of_its_worker(queue, store):
    (undisturbed,) = train_targets(TrainTargetConfig(run_name="undisturbed", **TRAINING), SilentTracker())
    urgent = JobOptions(priority=1)
    bad_task = {"task": "text", "data_dir": "missing.txt", "target_model": "GPT"}
    queue.add("train-target", {"run_name": "bad", **bad_task}, urgent)
    queue.add("train-target", {"run_name": "code", "target_model": "somebody.elses:network"}, urgent)
    number = queue.add("train-target", {"run_name": "job", **TRAINING}, JobOptions(max_attempts=2)).id
    with worker(store) as first:
        wait_for(lambda: steps(queue, number, 1), first)
        assert queue.pause(number).request == "pause"
        wait_for(lambda: queue.get(number).state is State.PAUSED, first)
        bad, code = queue.jobs([State.FAILED])
        assert (bad.attempt, code.attempt) == (1, 1), "errors of the user fail at once"
        assert "missing.txt" in bad.error
        assert "sets target_model to 'somebody.elses:network', and a file must not run code" in code.error
        with worker(store) as second:
            assert second.wait(WITHIN) == 1
            assert "slot 'default' of this machine has a worker" in second.stderr.read()
        assert queue.get(number).attempt == 1, "a paused job stays paused"

        queue.resume(number)
        wait_for(lambda: steps(queue, number, 2), first)
        os.kill(queue.get(number).owner.pid, signal.SIGKILL)
        wait_for(lambda: steps(queue, number, 3), first)
        assert queue.get(number).failures == 1
        first.kill()
        given_back = wait_for(lambda: (job := queue.get(number)).state is State.QUEUED and job)
        assert (given_back.failures, given_back.attempt) == (1, 3), "the worker was killed, not the job"
    with worker(store) as third:
        wait_for(lambda: steps(queue, number, 4), third)
        third.terminate()
        assert third.wait(WITHIN) == 0, third.stderr.read()
    job = queue.get(number)
    assert (job.state, job.attempt, job.failures, len(job.run_ids)) == (State.QUEUED, 4, 1, 4)
    assert queue.workers() == []
    assert "stops after step" in (store / "operations" / "logs" / str(number) / "4.log").read_text(encoding="utf-8")

    train_targets(resumed(job.workflow, TrainTargetConfig.from_mapping(job.config)), SilentTracker())
    folder = store / "trajectories" / "job" / "seed_0"
    names = {path.name for path in undisturbed.glob("step_*")}
    assert names == {path.name for path in folder.glob("step_*")}
    assert all((undisturbed / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_a_worker_ends_when_nothing_is_left(queue, store):
    queue.pause(queue.add("train-target", {"run_name": "job"}).id)
    with worker(store, "--until-empty", "true") as running:
        assert running.wait(WITHIN) == 0, running.stderr.read()
