"""The workers of an executor: kept at work until the queue is empty, and given up when they fail."""

import pytest

from metaopt.core.errors import InvalidConfig, JobError
from metaopt.operations.claims import Claims
from metaopt.operations.executors import WorkersConfig, _Crew, run_workers
from metaopt.operations.jobs import Owner, State
from metaopt.operations.queue import JobQueue

OWNER = Owner("host", 1, "slot", None)


@pytest.fixture
def queue(tmp_path):
    with JobQueue(f"sqlite:///{tmp_path / 'queue.db'}") as opened:
        yield opened


class Limited:
    """A worker in this process that has time for one job; or that fails, or never starts."""

    def __init__(self, claims, kind="works"):
        self.claims, self.kind, self.cancelled = claims, kind, False
        self.name = str(id(self))

    def has_ended(self):
        return self.kind != "waits"

    def attempts(self):
        if self.kind == "fails":
            raise RuntimeError("no such partition")
        job = self.claims.claim(OWNER)
        return int(job is not None and self.claims.done(job))

    def cancel(self):
        self.cancelled = True


def crew(queue, started, kinds, **config):
    """A crew whose workers are of these kinds, the last one again and again."""
    claims = Claims(queue)

    def start(config):
        assert config.until_empty
        kind = kinds[min(len(started), len(kinds) - 1)]
        started.append(Limited(claims, kind))
        if kind == "is refused":
            raise RuntimeError("the scheduler is away")
        return started[-1]

    return _Crew(WorkersConfig(executor="slurm", poll=0.001, first_pause=0.0, **config), start, claims)


def test_workers_that_end_early_are_started_again_until_no_job_is_left(queue):
    for _ in range(5):
        queue.add("train-target", {})
    started = []
    assert crew(queue, started, ["works"], workers=2).run() == 5
    assert len(started) == 6
    assert {job.state for job in queue.jobs()} == {State.DONE}


def test_without_jobs_no_worker_is_started(queue):
    queue.pause(queue.add("train-target", {}).id)
    started = []
    assert crew(queue, started, ["works"]).run() == 0
    assert started == []


def test_workers_that_fail_now_and_then_are_started_again(queue):
    for _ in range(3):
        queue.add("train-target", {})
    started = []
    assert crew(queue, started, ["is refused", "fails", "works", "fails", "is refused", "works", "works"]).run() == 3
    assert len(started) == 7


def test_workers_that_only_fail_are_given_up_and_the_others_are_cancelled(queue):
    queue.add("train-target", {})
    started = []
    with pytest.raises(JobError, match="5 workers failed in a row, the last one by: RuntimeError: no such partition"):
        crew(queue, started, ["waits", "fails"], workers=2).run()
    assert [each.cancelled for each in started] == [True] + 5 * [False]
    assert queue.get(1).state is State.QUEUED


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"workers": 2}, "workers and executor_options are for an executor; add --executor"),
        ({"executor_options": "timeout_min=1"}, "workers and executor_options are for an executor"),
        ({"executor": "pbs"}, "executor is 'pbs'"),
        ({"executor": "local", "workers": 0}, "workers is 0"),
    ],
)
def test_bad_values_are_refused(config, message):
    with pytest.raises(InvalidConfig, match=message):
        WorkersConfig(**config)


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        ("local", {"speed": 9}, "local cannot start workers: .*speed"),
        ("slurm", {}, "slurm cannot start workers: RuntimeError: Could not detect"),
    ],
)
def test_what_an_executor_does_not_know_is_refused_before_anything_starts(
    queue, tmp_path, monkeypatch, executor, options, message
):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")  # no srun
    config = WorkersConfig(queue=str(tmp_path / "queue.db"), executor=executor, executor_options=options)
    with pytest.raises(InvalidConfig, match=message):
        run_workers(config)
