"""Jobs of the queue: what one is, its states, and what may follow what."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..core.config import Config, option
from ..core.errors import IllegalTransition, InvalidConfig, JobError
from ..core.text import shown

METAOPT = version("metaopt")
"""The version that writes jobs in this process."""


class State(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    STOPPED = "stopped"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.PAUSED, State.SKIPPED, State.STOPPED}),
    State.RUNNING: frozenset(State) - {State.RUNNING},
    State.PAUSED: frozenset({State.QUEUED, State.SKIPPED, State.STOPPED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.SKIPPED: frozenset({State.QUEUED}),
    State.STOPPED: frozenset({State.QUEUED}),
}
"""States that can follow each state."""

UNSUCCESSFUL = frozenset({State.FAILED, State.SKIPPED, State.STOPPED})
"""States of jobs that have ended without a result; `retry` queues them again."""


class Request(StrEnum):
    """What a person wants of a running job. It holds for the attempt that runs, not for later ones."""

    PAUSE = "pause"
    STOP = "stop"
    SKIP = "skip"

    @property
    def state(self) -> State:
        """The state of a job that has followed the request."""
        return {Request.PAUSE: State.PAUSED, Request.STOP: State.STOPPED, Request.SKIP: State.SKIPPED}[self]


class JobOptions(Config):
    """How a job is queued; what it does are the parameters of its workflow."""

    name: str | None = option(default=None, help="Name for people; by default the run name.")
    priority: int = option(
        default=0,
        help="Higher runs first; of equal ones the older job.",
        at_least=-(10**6),
        at_most=10**6,
    )
    after: tuple[int, ...] = option(default=(), help="IDs of jobs that must be done before.", at_least=1)
    max_attempts: int = option(
        default=3, help="Attempts before a job that crashes has failed [count].", at_least=1, at_most=1000
    )
    not_before: str | None = option(default=None, help="Earliest start, such as 2027-01-31T08:00; local time.")
    lease: float = option(
        default=900.0,
        help="Time without a finished step after which a job is taken for hung, and runs again [s].",
        at_least=1.0,
    )
    needs: str | None = option(
        default=None, help="Device that the worker must have, such as cuda or cuda:1; none: any worker."
    )
    folder: Path | None = option(default=None, help="Working folder of the job; by default the present one.")

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if self.name is not None and not (0 < len(self.name) <= 200 and self.name.isprintable()):
            raise InvalidConfig(f"name is {shown(self.name)}; expected 1 to 200 printable characters")
        if not math.isfinite(self.lease):
            raise InvalidConfig(f"lease is {self.lease}; expected a number of seconds")
        _ = self.start

    @property
    def start(self) -> float | None:
        """The earliest start [s since 1970]; None for at once."""
        if self.not_before is None:
            return None
        try:
            return datetime.fromisoformat(self.not_before).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidConfig(
                f"not_before is {shown(self.not_before)} ({error}); expected a time such as 2027-01-31T08:00"
            ) from error


@dataclass(frozen=True)
class Owner:
    """The process that runs an attempt of a job.

    Attributes:
        host: name of its machine.
        pid: its number.
        slot: name of the place where the worker runs one job at a time.
        identity: of `core.process_identity`, to tell whether the process has ended.
    """

    host: str
    pid: int
    slot: str
    identity: str | None


@dataclass(frozen=True)
class Job:
    """A job as the table has it.

    Attributes:
        workflow: name of its command, such as `train-target`.
        config: parameters of the workflow.
        folder: working folder.
        priority: higher runs first.
        depends_on: state of each job that must be done before, by ID.
        attempt: number of the last attempt, from 1; 0 before the first.
        failures: attempts that crashed, since the job was queued by a person [count].
        max_attempts: failures after which it has failed [count].
        not_before: earliest start [s since 1970].
        retry_at: earliest next attempt after a crash [s since 1970].
        lease: time without a beat after which it is taken for hung [s].
        needs: device that its worker must have.
        beat: number of times that its process reported finished steps [count].
        steps: finished steps of this attempt [count].
        request: what a person wants of the attempt that runs.
        owner: the process that runs its last attempt.
        run_ids: MLflow runs of its attempts, oldest first.
        log: file with the messages of the last attempt.
        error: why it has failed, or why its last attempt did.
        version: version of metaopt that wrote it.
        created, started, ended: times [s since 1970]; of the last attempt.
    """

    id: int
    name: str
    workflow: str
    config: Mapping[str, Any]
    folder: str
    state: State
    priority: int
    depends_on: Mapping[int, State]
    attempt: int
    failures: int
    max_attempts: int
    not_before: float | None
    retry_at: float | None
    lease: float
    needs: str | None
    beat: int
    steps: int
    request: Request | None
    owner: Owner | None
    run_ids: tuple[str, ...]
    log: str | None
    error: str | None
    version: str
    created: float
    started: float | None
    ended: float | None

    @property
    def blocked_by(self) -> Mapping[int, State]:
        """Dependencies that have ended without a result: the job does not run until they are retried."""
        return {number: state for number, state in self.depends_on.items() if state in UNSUCCESSFUL}

    @property
    def waits(self) -> str:
        """Why a queued job does not run yet, in words; empty if nothing but a free worker is missing."""
        if self.state is not State.QUEUED:
            return ""
        if self.blocked_by:
            reasons = ", ".join(f"job {number} is {state}" for number, state in self.blocked_by.items())
            return f"cannot run: {reasons}; retry it, or give this job other dependencies"
        open_jobs = [str(number) for number, state in self.depends_on.items() if state is not State.DONE]
        return f"after {', '.join(open_jobs)}" if open_jobs else ""

    def to_mapping(self) -> dict[str, Any]:
        """The job as JSON values."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        owner = None if self.owner is None else vars(self.owner)
        return {**own, "owner": owner, "waits": self.waits, "config": dict(self.config), "run_ids": [*self.run_ids]}


def check_transition(number: int, before: State, after: State) -> None:
    """Raise unless a state may follow another one.

    Args:
        number: ID of the job, for the message.
    Raises:
        IllegalTransition: it may not.
    """
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing"
        raise IllegalTransition(f"job {number} is {before}, and cannot become {after}; it can become: {allowed}")


def check_version(job: Job) -> None:
    """Raise if this version of metaopt cannot run a job.

    Raises:
        JobError: a newer version wrote it, or one whose name is not understood.
    """
    written, own = _release(job.version), _release(METAOPT)
    if written is None or (own is not None and written > own):
        raise JobError(
            f"job {job.id} was written by metaopt {shown(job.version)}, and this is {METAOPT}; update metaopt here, "
            "then retry the job"
        )


def _release(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d{1,6})\.(\d{1,6})", text)
    return None if found is None else (int(found[1]), int(found[2]))
