"""Jobs on workers that an executor starts: processes of submitit, which is that of Slurm, and tasks of Ray."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue

pytestmark = pytest.mark.slow  # each starts several processes that import torch and MLflow

TRAINING = {"target_model": "MLP", "target_options": {"widths": [8]}, "epochs": 10, "batch_size": 16,
            "snapshot_every": 20, "checkpoint_every": 3}  # fmt: skip
WITHIN = 300.0  # a busy machine imports torch and MLflow for minutes [s]

SLURM = {
    "sbatch": """
        n=$(($(ls -d "$SLURM_STUB"/job_* 2>/dev/null | wc -l) + 1)) && job="$SLURM_STUB/job_$n" && mkdir "$job"
        export SLURM_JOB_ID=$n
        setsid bash -c 'bash "$0"; touch "$1/ended"' "$1" "$job" >"$job/output" 2>&1 </dev/null &
        echo "Submitted batch job $n"
    """,
    "srun": """
        output=${3//%j/$SLURM_JOB_ID} && error=${5//%j/$SLURM_JOB_ID}
        shift 5
        exec "$@" >>"${output//%t/0}" 2>>"${error//%t/0}"
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        for job in "$SLURM_STUB"/job_*; do
            if [ -e "$job/ended" ]; then state=COMPLETED; else state=RUNNING; fi
            echo "${job##*_}|$state|here"
        done
    """,
    "scancel": "exit 0",
}
"""Programs that run the jobs of Slurm on this machine at once; only what submitit needs."""


@pytest.fixture
def queue(store):
    with JobQueue("queue.db") as opened:
        yield opened


@pytest.fixture
def slurm(store, monkeypatch):
    """Programs with the names of those of Slurm."""
    folder = store / "slurm"
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STUB", str(folder))


@contextmanager
def workers(folder, executor, *flags):
    """The command that keeps workers at work."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    words = ["worker", "--poll", "0.05", "--beat", "0.05", "--executor", executor, *flags]
    command = [sys.executable, "-m", "metaopt.cli", *words]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def family(pid):
    """A process and all that it started."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(each for child in file.read_text().split() for each in family(int(child)))]


# Slurm sends it to all processes of a worker: before the time limit, and when it needs the machine.
@pytest.mark.parametrize(
    ("executor", "sent"),
    [
        ("local", signal.SIGUSR2),
        ("local", signal.SIGTERM),
        ("slurm", signal.SIGUSR2),
    ],
)
def test_a_job_goes_on_in_another_worker_after_a_signal_of_the_scheduler(queue, store, slurm, executor, sent):
    pytest.importorskip("submitit")
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc")
    number = queue.add("train-target", {"run_name": "job", **TRAINING}).id
    with workers(store, executor) as command:
        end = time.monotonic() + WITHIN
        while not ((job := queue.get(number)).state is State.RUNNING and job.steps) and time.monotonic() < end:
            assert command.poll() is None, command.stderr.read()
            time.sleep(0.02)
        (worker,) = queue.workers()
        for pid in family(worker.pid):
            os.kill(pid, sent)
        output, messages = command.communicate(timeout=WITHIN)
    job = queue.get(number)
    assert (job.state, job.attempt, job.failures, len(job.run_ids)) == (State.DONE, 2, 0, 2), messages
    assert "after 2 attempts" in output
    assert job.owner.slot.startswith("job ")
    assert job.owner.slot != worker.slot
    expected = "stops after step" if sent == signal.SIGUSR2 else "job 1 stops"  # SIGTERM reaches the job itself
    assert expected in Path(job.log).with_name("1.log").read_text(encoding="utf-8")


def test_jobs_run_on_workers_of_ray(queue, store):
    pytest.importorskip("ray")
    queue.add("train-target", {"run_name": "job", **TRAINING})
    with workers(store, "ray", "--executor-options", "num_cpus=0.5", "--slot", "night") as command:
        output, messages = command.communicate(timeout=WITHIN)
    job = queue.get(1)
    assert (job.state, job.attempt) == (State.DONE, 1), messages
    assert "after 1 attempt" in output
    assert job.owner.slot.startswith("night task ")
