"""The queue: what it refuses, its tables and their versions, leases, pauses, and what a clock that is set back does."""

import sqlite3
import time

import pytest
from sqlalchemy import text, update

from metaopt.core.errors import IllegalTransition, InvalidConfig, JobError, QueueError, UnknownName
from metaopt.core.process_identity import process_of, this_process
from metaopt.operations import database, jobs, schema
from metaopt.operations.back_off import BackOff
from metaopt.operations.claims import Claims
from metaopt.operations.jobs import JobOptions, Owner, Request, State
from metaopt.operations.leases import LeaseWatch
from metaopt.operations.queue import JobQueue
from metaopt.operations.schema import JOBS
from metaopt.operations.worker import Worker, WorkerConfig

OWNER = Owner("host", 1, "slot", None)
TRAIN = ("train-target", {"run_name": "mlp", "epochs": 2})


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def queue(url):
    with JobQueue(url) as opened:
        yield opened


@pytest.fixture
def claims(queue):
    return Claims(queue)


def test_a_job_keeps_all_parameters_of_its_workflow(queue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = queue.add(*TRAIN)
    assert (job.state, job.name, job.folder, job.attempt) == (State.QUEUED, "mlp", str(tmp_path), 0)
    assert job.config["epochs"] == 2
    assert job.config["lr"] == 1e-3
    assert queue.get(job.id) == job


@pytest.mark.parametrize(
    ("workflow", "config", "options", "error", "message"),
    [
        ("train-tarket", {}, {}, UnknownName, "did you mean train-target"),
        ("train-target", {"target_model": "MLPP"}, {}, UnknownName, "did you mean MLP"),
        ("train-target", {"task": "digit"}, {}, UnknownName, "did you mean digits"),
        ("train-target", {"base_optimizer": "Adan"}, {}, UnknownName, "did you mean Adam"),
        ("train-optimizer", {"optimizer_model": "Perceiver"}, {}, UnknownName, "PerceiverOptimizer"),
        ("train-target", {"epoch": 1}, {}, InvalidConfig, "did you mean epochs"),
        ("train-target", {"epochs": 0}, {}, InvalidConfig, "epochs is 0"),
        ("train-target", {}, {"after": (7,)}, JobError, "there is no job 7 to wait for"),
        ("train-target", {}, {"not_before": "soon"}, InvalidConfig, "not_before is 'soon'"),
        ("train-target", {}, {"max_attempts": 0}, InvalidConfig, "max_attempts is 0"),
        ("train-target", {}, {"name": "a\nb"}, InvalidConfig, "printable"),
    ],
)
def test_bad_jobs_are_refused_before_anything_is_stored(queue, workflow, config, options, error, message):
    with pytest.raises(error, match=message):
        queue.add(workflow, config, JobOptions(**options))
    assert queue.jobs() == []


def test_a_job_that_waits_for_a_failed_one_says_so(queue, claims):
    first = queue.add(*TRAIN)
    second = queue.add(*TRAIN, JobOptions(after=(first.id,), priority=9))
    assert second.waits == f"after {first.id}"
    assert claims.claim(OWNER).id == first.id
    assert not claims.is_empty()
    claims.failed(queue.get(first.id), "broken")
    assert queue.get(second.id).waits.startswith(f"cannot run: job {first.id} is failed")
    assert claims.claim(OWNER) is None
    assert claims.is_empty()
    queue.retry(first.id)
    assert not claims.is_empty()


def test_jobs_cannot_wait_for_each_other(queue):
    first, second, third = (queue.add(*TRAIN) for _ in range(3))
    queue.move(second.id, after=[first.id])
    queue.move(third.id, after=[second.id])
    with pytest.raises(JobError, match=f"{first.id} after {third.id} after {second.id} after {first.id}"):
        queue.move(first.id, after=[third.id])
    with pytest.raises(JobError, match="would wait for itself"):
        queue.move(first.id, after=[first.id])
    assert queue.get(first.id).depends_on == {}


def test_a_job_runs_on_the_device_that_it_needs(queue, claims):
    job = queue.add(*TRAIN, JobOptions(needs="cuda"))
    assert claims.claim(OWNER) is None
    assert claims.claim(OWNER, "cpu") is None
    assert claims.is_empty("cpu")
    assert not claims.is_empty("cuda:1")
    assert claims.claim(OWNER, "cuda:1").id == job.id


def test_a_job_of_a_newer_version_is_refused(queue, monkeypatch):
    job = queue.add(*TRAIN)
    jobs.check_version(job)
    monkeypatch.setattr(jobs, "METAOPT", "0.0.9")
    with pytest.raises(JobError, match=r"was written by metaopt '0\.1\.0', and this is 0\.0\.9; update"):
        jobs.check_version(job)


def test_a_request_never_reaches_a_later_attempt(queue, claims):
    queue.add(*TRAIN)
    first = claims.claim(OWNER)
    queue.pause(first.id)
    assert claims.beat(first, 1).request is Request.PAUSE
    assert claims.give_back(first)
    assert queue.get(first.id).state is State.PAUSED
    queue.resume(first.id)
    second = claims.claim(OWNER)
    assert claims.beat(second, 1).request is None
    assert not claims.give_back(first)
    assert queue.get(first.id).state is State.RUNNING


def test_a_request_can_be_taken_back(queue, claims):
    queue.add(*TRAIN)
    job = claims.claim(OWNER)
    queue.pause(job.id)
    queue.resume(job.id)
    assert claims.beat(job, None).request is None
    with pytest.raises(IllegalTransition, match="expected a paused job"):
        queue.resume(job.id)


def test_pauses_after_crashes_grow_to_the_longest(queue, claims):
    back_off = BackOff(first=2.0, longest=10.0)
    for failures, longest in ((1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (10**6, 10.0)):
        assert 0.75 * longest <= back_off.delay(failures) <= longest


def test_a_clock_that_is_set_back_delays_a_job_by_the_longest_pause_at_most(url, monkeypatch):
    with JobQueue(url, back_off=BackOff(first=60.0, longest=60.0)) as queue:
        claims = Claims(queue)
        queue.add(*TRAIN)
        claims.crashed(claims.claim(OWNER), "crash")
        assert claims.claim(OWNER) is None, "it rests"
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600.0)
        assert claims.claim(OWNER) is not None


def test_a_clock_that_is_set_back_while_a_job_runs_changes_nothing(url, monkeypatch):
    with JobQueue(url, back_off=BackOff(first=0.0, longest=60.0)) as queue:
        claims, watch = Claims(queue), LeaseWatch()
        first, second = (queue.add(*TRAIN).id for _ in range(2))
        job = claims.claim(OWNER)
        assert not list(watch.abandoned(claims.running()))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600.0)
        assert not list(watch.abandoned(claims.running()))
        assert claims.beat(job, 1).owned
        assert queue.pause(job.id).request is Request.PAUSE
        assert claims.beat(job, 2).request is Request.PAUSE
        assert claims.give_back(job)
        queue.resume(job.id)
        again = claims.claim(OWNER)
        assert (again.id, again.attempt) == (first, 2), "the order is that of the numbers"
        assert claims.crashed(again, "crash"), "with a pause by the new clock"
        third = claims.claim(OWNER)
        assert (third.id, third.attempt, third.failures) == (first, 3, 1)
        assert claims.done(third)
        assert not claims.done(job)
        assert claims.claim(OWNER).id == second
        ended = queue.get(first)
        assert (ended.state, ended.ended < ended.created) == (State.DONE, True)


def test_a_worker_reports_by_a_clock_that_is_never_set_back(url, tmp_path, monkeypatch):
    with JobQueue(url) as queue:
        worker = Worker(WorkerConfig(queue=url), queue, tmp_path / "lock")
        worker._look_after_jobs()
        real, monotonic = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: real() - 3600.0)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 10.0)
        worker._look_after_jobs()
        (row,) = queue.workers()
        assert (row.beat, row.seen < row.started) == (2, True)


def test_not_before_holds_however_far_it_is(queue, claims, monkeypatch):
    job = queue.add(*TRAIN, JobOptions(not_before="2999-01-01T00:00"))
    assert claims.claim(OWNER) is None
    assert not claims.is_empty()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 40e9)
    assert claims.claim(OWNER).id == job.id


def test_a_job_that_reports_nothing_loses_its_lease_by_the_clock_of_who_watches(queue, claims):
    now = [0.0]
    watch = LeaseWatch(clock=lambda: now[0])
    queue.add(*TRAIN, JobOptions(lease=10.0))
    job = claims.claim(OWNER)
    assert not list(watch.abandoned(claims.running()))
    now[0] = 9.0
    claims.beat(job, 5)
    assert not list(watch.abandoned(claims.running()))
    now[0] = 18.0
    claims.beat(job, None)  # no step since
    assert not list(watch.abandoned(claims.running()))
    now[0] = 19.0
    ((found, reason),) = watch.abandoned(claims.running())
    assert "finished no step for 10 s" in reason
    assert claims.crashed(found, reason, found.beat)
    assert not claims.beat(job, 6).owned


def test_leases_do_not_end_while_the_queue_is_away(queue, claims):
    now = [0.0]
    watch = LeaseWatch(clock=lambda: now[0])
    queue.add(*TRAIN, JobOptions(lease=100.0))
    claims.claim(OWNER)
    assert not list(watch.abandoned(claims.running()))
    for now[0] in (500.0, 550.0, 599.0):
        assert not list(watch.abandoned(claims.running())), "nobody looked before 500 s, so the lease begins there"
    now[0] = 600.0
    assert len(list(watch.abandoned(claims.running()))) == 1


def test_a_job_that_reports_in_the_last_moment_keeps_its_lease(queue, claims):
    queue.add(*TRAIN)
    job = claims.claim(OWNER)
    seen = queue.get(job.id)
    claims.beat(job, 1)
    assert not claims.crashed(seen, "late", seen.beat)


def test_a_dead_process_of_this_machine_is_found_at_once(queue, claims):
    queue.add(*TRAIN)
    queue.add(*TRAIN)
    alive, gone = this_process(), process_of(1)
    if alive is None or gone is None:
        pytest.skip("no /proc")
    number, start, machine = gone.split(" ", 2)
    claims.claim(Owner("host", 1, "slot", alive))
    dead = claims.claim(Owner("host", 1, "slot", f"{number} {int(start) + 1} {machine}"))
    ((found, reason),) = LeaseWatch().abandoned(claims.running())
    assert (found.id, reason) == (dead.id, "its process 1 on host has ended")


def test_several_attempts_are_failures_until_the_last(url):
    with JobQueue(url, back_off=BackOff(0.0, 0.0)) as queue:
        claims = Claims(queue)
        number = queue.add(*TRAIN, JobOptions(max_attempts=2)).id
        claims.give_back(claims.claim(OWNER))
        claims.crashed(claims.claim(OWNER), "first")
        assert (queue.get(number).state, queue.get(number).failures) == (State.QUEUED, 1)
        claims.crashed(claims.claim(OWNER), "second")
        found = queue.get(number)
        assert (found.state, found.failures, found.attempt, found.error) == (State.FAILED, 2, 3, "second")


def test_runs_of_all_attempts_are_kept(queue, claims):
    number = queue.add(*TRAIN).id
    for run_id in ("a", "b"):
        job = claims.claim(OWNER)
        assert claims.add_run(job, run_id)
        assert claims.add_run(job, run_id)
        claims.give_back(job)
    assert queue.get(number).run_ids == ("a", "b")


def test_tables_of_a_newer_version_are_refused(url, queue):
    queue.database.write(lambda connection: connection.execute(update(schema.SCHEMA).values(version=99)))
    with pytest.raises(QueueError, match="version 99, and this metaopt knows versions 1 to 1; update"):
        JobQueue(url)


def test_tables_of_an_older_version_are_upgraded_once(url, queue, monkeypatch):
    number = queue.add(*TRAIN).id
    calls = []

    def upgrade(connection):
        calls.append(1)
        connection.execute(text("ALTER TABLE queue_workers ADD COLUMN mood TEXT"))

    for module in (schema, database):
        monkeypatch.setattr(module, "UPGRADES", [upgrade])
    for _ in range(2):
        with JobQueue(url) as upgraded:
            assert upgraded.get(number).name == "mlp"
    assert calls == [1]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/queue", "cannot be kept in 'mysql'"),
        ("no url://", "is no URL"),
        ("postgresql://someone:secret@host:port/queue", "the queue 'postgresql://host:port/queue' is no URL"),
        ("postgresql://someone:some@secret@host/queue", "has several @; write those of a password as %40"),
        ("postgresql://host:port/queue?user=someone&password=secret", r"password=\*\*\*' is no URL"),
        ("sqlite:///:memory:", "seen by one process only"),
        ("sqlite:///nowhere/at/all/queue.db", "folder nowhere/at/all of the queue does not exist"),
        ("postgresql://someone:secret@127.0.0.1:1/queue", r"someone:\*\*\*@127.0.0.1:1/queue does not respond"),
    ],
)
def test_a_queue_that_cannot_be_used_is_refused(url, message):
    pytest.importorskip("psycopg2")
    with pytest.raises(QueueError, match=message) as caught:
        JobQueue(url)
    assert "secret" not in str(caught.value)


def test_a_missing_queue_is_made_only_to_add_jobs(url, tmp_path):
    with pytest.raises(QueueError, match="there is no queue at"):
        JobQueue(url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_no_queue(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all, but long enough to be one\n" * 40, encoding="utf-8")
    with pytest.raises(QueueError, match="expected a queue, or a new file"):
        JobQueue(str(file))
    assert file.read_text(encoding="utf-8").startswith("not a database")


@pytest.mark.parametrize("column", ["config", "run_ids", "state", "request"])
def test_a_damaged_row_is_an_error_of_its_own(queue, column, tmp_path):
    number = queue.add(*TRAIN).id
    queue.database.write(lambda connection: connection.execute(update(JOBS).values({column: "[{]"})))
    with pytest.raises(QueueError, match=f"the row of job {number} is damaged"):
        queue.get(number)


def test_a_locked_database_is_waited_for(url, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY", 0.01)
    with JobQueue(url, patience=30.0) as patient:
        other = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        sleeps = []

        def give_way(seconds):
            sleeps.append(seconds)
            other.execute("ROLLBACK")

        monkeypatch.setattr(time, "sleep", give_way)
        assert patient.add(*TRAIN).id == 1
        assert len(sleeps) == 1
        other.close()
