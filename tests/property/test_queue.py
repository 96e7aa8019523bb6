"""Histories of the queue against a plain model of it, on SQLite and on PostgreSQL."""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from metaopt.core.errors import IllegalTransition, JobError
from metaopt.operations.back_off import BackOff
from metaopt.operations.claims import Claims
from metaopt.operations.jobs import TRANSITIONS, Job, JobOptions, Owner, Request, State
from metaopt.operations.queue import JobQueue

from ..postgres import postgres

OWNER = Owner("host", 1, "slot", None)
REQUESTS = {"pause": State.PAUSED, "stop": State.STOPPED, "skip": State.SKIPPED}
picks = st.integers(0, 10**6)


@dataclass
class Expected:
    """A job as it should be."""

    priority: int
    after: set[int]
    max_attempts: int
    state: State = State.QUEUED
    attempt: int = 0
    failures: int = 0
    request: str | None = None
    held: list[Job] = field(default_factory=list)  # what its attempts claimed, oldest first


class Histories(RuleBasedStateMachine):
    """Random calls; after each the table must be as the model, and every transition a legal one."""

    url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, Expected] = {}

    @initialize()
    def open(self) -> None:
        self.queue = JobQueue(self.url(), back_off=BackOff(first=0.0, longest=0.0))
        self.claims = Claims(self.queue)
        self.first = max((job.id for job in self.queue.jobs()), default=0)
        for job in self.queue.jobs([State.QUEUED, State.PAUSED]):  # of an earlier history in the same database
            self.queue.skip(job.id)
        for job in self.claims.running():
            self.claims.failed(job, "left by an earlier history")

    def teardown(self) -> None:
        self.queue.close()

    def pick(self, number: int, *states: State) -> int:
        """One of the jobs in some states."""
        found = [each for each, job in self.model.items() if not states or job.state in states]
        return found[number % len(found)]

    def has(self, *states: State) -> bool:
        return any(job.state in states for job in self.model.values())

    def check(self, number: int) -> None:
        """Compare a job with the model."""
        found, expected = self.queue.get(number), self.model[number]
        assert (found.state, found.attempt, found.failures) == (expected.state, expected.attempt, expected.failures)
        assert found.request == (None if expected.request is None else Request(expected.request))
        assert found.priority == expected.priority
        assert found.depends_on == {each: self.model[each].state for each in expected.after}

    def change(self, number: int, state: State) -> None:
        expected = self.model[number]
        assert state in TRANSITIONS[expected.state]
        expected.state = state
        if state is not State.RUNNING:
            expected.request = None

    @rule(priority=st.integers(-1, 2), after=st.sets(picks, max_size=2), max_attempts=st.integers(1, 2))
    def add(self, priority, after, max_attempts):
        needed = {self.pick(number) for number in after} if self.model else set()
        options = JobOptions(priority=priority, after=tuple(needed), max_attempts=max_attempts)
        job = self.queue.add("register", {"checkpoint": "optimizer.safetensors"}, options)
        self.model[job.id] = Expected(priority, needed, max_attempts)
        self.check(job.id)

    @rule()
    def claim(self):
        ready = [
            number
            for number, job in self.model.items()
            if job.state is State.QUEUED and all(self.model[each].state is State.DONE for each in job.after)
        ]
        job = self.claims.claim(OWNER)
        if not ready:
            assert job is None
            return
        best = min(ready, key=lambda number: (-self.model[number].priority, number))
        assert job is not None
        assert job.id == best
        expected = self.model[best]
        self.change(best, State.RUNNING)
        expected.attempt += 1
        expected.held.append(job)
        self.check(best)

    @precondition(lambda self: self.has(State.RUNNING))
    @rule(number=picks, how=st.sampled_from(["done", "failed", "crashed", "give_back"]))
    def leave(self, number, how):
        number = self.pick(number, State.RUNNING)
        expected = self.model[number]
        held = expected.held[-1]
        requested = None if expected.request is None else REQUESTS[expected.request]
        assert (
            self.claims.failed(held, "reason")
            if how == "failed"
            else (self.claims.crashed(held, "reason") if how == "crashed" else getattr(self.claims, how)(held))
        )
        if how == "crashed" and not requested:
            expected.failures += 1
        again = State.FAILED if how == "crashed" and expected.failures >= expected.max_attempts else State.QUEUED
        after = {"done": State.DONE, "failed": State.FAILED}.get(how, requested or again)
        self.change(number, after)
        self.check(number)

    @precondition(lambda self: any(len(job.held) > (job.state is State.RUNNING) for job in self.model.values()))
    @rule(number=picks)
    def stale(self, number):
        """A process whose attempt is over changes nothing."""
        stale = [each for job in self.model.values() for each in job.held[: -1 if job.state is State.RUNNING else None]]
        held = stale[number % len(stale)]
        before = self.queue.get(held.id)
        assert not self.claims.beat(held, 3).owned
        assert not self.claims.begin(held, OWNER, "log")
        assert not self.claims.add_run(held, "run")
        assert not self.claims.done(held)
        assert not self.claims.failed(held, "late")
        assert not self.claims.crashed(held, "late")
        assert not self.claims.give_back(held)
        assert self.queue.get(held.id) == before

    @precondition(lambda self: self.model)
    @rule(number=picks, request=st.sampled_from([*REQUESTS]))
    def request(self, number, request):
        number = self.pick(number)
        expected = self.model[number]
        if REQUESTS[request] not in TRANSITIONS[expected.state]:
            with pytest.raises(IllegalTransition):
                getattr(self.queue, request)(number)
        else:
            getattr(self.queue, request)(number)
            if expected.state is State.RUNNING:
                expected.request = request
                assert self.claims.beat(expected.held[-1], None).request == request
            else:
                self.change(number, REQUESTS[request])
        self.check(number)

    @precondition(lambda self: self.model)
    @rule(number=picks)
    def resume(self, number):
        number = self.pick(number)
        expected = self.model[number]
        if expected.state is State.PAUSED:
            self.queue.resume(number)
            self.change(number, State.QUEUED)
        elif expected.request == "pause":
            self.queue.resume(number)
            expected.request = None
        else:
            with pytest.raises(IllegalTransition):
                self.queue.resume(number)
        self.check(number)

    @precondition(lambda self: self.model)
    @rule(number=picks)
    def retry(self, number):
        number = self.pick(number)
        expected = self.model[number]
        if expected.state in (State.FAILED, State.STOPPED, State.SKIPPED):
            self.queue.retry(number)
            self.change(number, State.QUEUED)
            expected.failures = 0
        else:
            with pytest.raises(IllegalTransition):
                self.queue.retry(number)
        self.check(number)

    @precondition(lambda self: self.has(State.QUEUED, State.PAUSED))
    @rule(number=picks, priority=st.integers(-1, 2), after=st.none() | st.sets(picks, max_size=2))
    def move(self, number, priority, after):
        number = self.pick(number, State.QUEUED, State.PAUSED)
        needed = None if after is None else {self.pick(each) for each in after}
        if needed and number in self.waited_for(needed):
            with pytest.raises(JobError, match="wait for itself"):
                self.queue.move(number, priority, needed)
            self.check(number)
            return
        self.queue.move(number, priority, needed)
        self.model[number].priority = priority
        if needed is not None:
            self.model[number].after = needed
        self.check(number)

    def waited_for(self, numbers: set[int]) -> set[int]:
        """The jobs, and all that they wait for."""
        found = set(numbers)
        while more := {each for number in found for each in self.model[number].after} - found:
            found |= more
        return found

    @rule()
    def empty(self):
        """Nothing is left that could run without a person."""
        jobs = self.model.items()
        finished = {number for number, job in jobs if job.state is State.DONE}
        for _ in self.model:
            finished |= {
                number for number, job in jobs if job.state in (State.QUEUED, State.RUNNING) and job.after <= finished
            }
        left = {number for number, job in jobs if job.state in (State.QUEUED, State.RUNNING)} & finished
        left |= {number for number, job in jobs if job.state is State.RUNNING}
        assert self.claims.is_empty() == (not left)
        assert [job.id for job in self.queue.jobs() if job.id > self.first] == sorted(
            self.model, key=lambda number: (-self.model[number].priority, number)
        )


def histories(examples: int, steps: int, url: Callable[[], str]) -> None:
    machine = type("Machine", (Histories,), {"url": staticmethod(url)})
    phases = [Phase.explicit, Phase.reuse, Phase.generate]  # to shrink a history takes minutes
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, phases=phases)
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.parametrize("examples", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_histories_on_sqlite(examples):
    numbers, memory = itertools.count(), Path("/dev/shm")  # a disk would take most of the time
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        histories(examples, 40, lambda: f"sqlite:///{folder}/{next(numbers)}.db")


def test_histories_on_postgresql():
    with postgres("queue") as url:
        histories(5, 30, lambda: f"{url}/queue")
