"""The process of one attempt: runs the workflow, reports its steps, and records how it ended.

The process records the end itself, so that a job whose worker was killed still ends exactly once.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..core.control import control
from ..core.errors import MetaoptError, QueueError, RunNameError, RunsFailed, StorageError, TrackingError, WorkerDied
from ..core.process_identity import this_process
from ..core.signals import ended_by_signal, terminable
from ..core.text import reason_of, shortened
from .back_off import BackOff
from .claims import Claims
from .jobs import Job, Owner, check_version
from .queue import JobQueue
from .resuming import resumed
from .workflow_table import find_workflow

log = logging.getLogger(__name__)

PATIENCE = 24 * 3600.0
"""Time for which the end of a job is kept while the queue does not respond [s]."""

_LOST = 75  # exit code of a process whose job was given to another one
_LONGEST = 2000  # of an error in the table [characters]
_ENVIRONMENT = (WorkerDied, StorageError, TrackingError, QueueError)  # errors that another attempt may not have


@dataclass(frozen=True)
class Attempt:
    """What the process of an attempt must know. Picklable.

    Attributes:
        job: as it was claimed.
        url: of the queue.
        back_off: how long jobs wait after a crash.
        host, slot: where it runs.
        lock: file that the processes of a slot lock, one after the other.
        log: file for all messages.
        device: device for workflows that choose one themselves; None leaves it to them.
        trusted: whether jobs may name code to import.
        beat_every: time between reports [s].
        grace: time from a request to stop until the workflow is interrupted, and from then until the end [s].
    """

    job: Job
    url: str
    back_off: BackOff
    host: str
    slot: str
    lock: Path
    log: Path
    device: str | None
    trusted: bool
    beat_every: float
    grace: float


def run_attempt(attempt: Attempt, connection: Connection) -> None:
    """Run an attempt in this process, from the claimed job to its end in the table.

    Args:
        connection: whatever the worker sends asks the job to stop; its end means that the worker was killed.
    """
    os.setsid()  # Ctrl-C in the terminal of the worker is for the worker alone
    _write_to(attempt.log)
    with FileLock(attempt.lock), JobQueue(attempt.url, patience=PATIENCE, back_off=attempt.back_off) as queue:
        claims, owner = Claims(queue), Owner(attempt.host, os.getpid(), attempt.slot, this_process())
        if not claims.begin(attempt.job, owner, str(attempt.log)):
            log.warning("job %d was given to another process", attempt.job.id)
            return
        with terminable(until_exit=True):
            _record(attempt, claims, Heartbeat(attempt, connection))


def _record(attempt: Attempt, claims: Claims, heartbeat: "Heartbeat") -> None:
    """Run the workflow, and write how it ended."""
    job = attempt.job
    try:
        with heartbeat.beating():
            _run(attempt, claims)
    except MetaoptError as error:
        log.error("%s", error)
        text = shortened(str(error), _LONGEST)
        is_own = claims.crashed(job, text) if _may_pass(error, job) else claims.failed(job, text)
    except BaseException as error:
        if ended_by_signal(error):
            log.info("job %d stops: %s", job.id, heartbeat.stopping or "its process was asked to end")
            is_own = claims.give_back(job)
        else:
            log.exception("job %d crashed", job.id)
            is_own = claims.crashed(job, reason_of(error))
    else:
        is_own = claims.done(job)
        if is_own:
            log.info("job %d is done", job.id)
    if not is_own:
        log.warning("job %d was given to another process in the meantime; its state is not changed", job.id)


def _run(attempt: Attempt, claims: Claims) -> None:
    from ..tracking import silence_mlflow  # imports MLflow

    silence_mlflow()
    job = attempt.job
    check_version(job)
    os.chdir(job.folder)
    workflow = find_workflow(job.workflow)
    kind, values = workflow.config_class, dict(job.config)
    if attempt.device is not None and values.get("device") == "auto":
        values["device"] = attempt.device
    config = kind.from_file_values(values, f"job {job.id}", trusted=attempt.trusted)
    control.job, control.earlier_runs = str(job.id), job.run_ids
    control.on_run = lambda run_id: _add_run(claims, job, run_id)
    log.info("job %d, %s, attempt %d: %s", job.id, job.name, job.attempt, job.workflow)
    result = workflow.run(resumed(job.workflow, config) if job.run_ids else config)
    if failure := getattr(result, "failure", None):
        raise RunsFailed(failure)


def _add_run(claims: Claims, job: Job, run_id: str) -> None:
    """Note a run that is about to write files: the next attempt resumes what is in its folder.

    What the run replaces is removed by then. Otherwise the next attempt would take it for its own.
    """
    if not claims.add_run(job, run_id):
        os._exit(_LOST)


def _may_pass(error: MetaoptError, job: Job) -> bool:
    """Whether another attempt may succeed: not after an error of the user."""
    causes = [error, error.__cause__]
    still_locked = isinstance(error, RunNameError) and job.attempt > 1  # by the hung process of an earlier attempt
    return still_locked or any(isinstance(each, _ENVIRONMENT) for each in causes)


def _write_to(path: Path) -> None:
    """Send all output of this process to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("metaopt").setLevel(logging.INFO)


class Heartbeat:
    """A thread that reports finished steps, and asks the training to stop.

    A job that finishes no steps reports nothing, so that it loses its lease. A process whose job was given to another
    one ends at once, because both would write the same files.

    Attributes:
        stopping: why the training was asked to stop; empty if it was not.
    """

    def __init__(self, attempt: Attempt, connection: Connection) -> None:
        self._attempt = attempt
        self._connection = connection
        self._own_end, self._other_end = os.pipe()
        self._steps = -1
        self._since: float | None = None
        self._told = self._interrupted = False
        self.stopping = ""

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Report during the block."""
        thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(self._other_end)
            thread.join()

    def _loop(self) -> None:
        with JobQueue(self._attempt.url, patience=PATIENCE) as queue:
            queue.database.patience = 0.0  # a report that fails is repeated with newer numbers
            claims = Claims(queue)
            while not self._is_over():
                self._beat(claims)
                self._enforce(claims)

    def _is_over(self) -> bool:
        """Wait for the next report, or for the worker or the end of the block."""
        parent = parent_process()
        assert parent is not None
        worker: list[Any] = [] if self._told else [parent.sentinel, self._connection]
        ready = wait([self._own_end, *worker], self._attempt.beat_every)
        if self._own_end in ready:
            return True
        if ready:  # a message of the worker, or its end
            self._told = True
            self.stopping = "its worker ends"
        return False

    def _beat(self, claims: Claims) -> None:
        steps = control.steps
        try:
            beat = claims.beat(self._attempt.job, steps if steps != self._steps else None)
        except QueueError as error:  # reported later
            log.warning("%s", error)
            return
        self._steps = steps
        if not beat.owned:
            log.warning("job %d was given to another process; this one ends", self._attempt.job.id)
            os._exit(_LOST)
        if not self._told:
            self.stopping = f"asked to {beat.request}" if beat.request else ""

    def _enforce(self, claims: Claims) -> None:
        """Ask the training to stop; after some time interrupt it, and then end the process."""
        control.stop_requested = bool(self.stopping)
        if not self.stopping:
            self._since = None
            return
        now, before = time.monotonic(), self._since
        self._since = before or now
        waited, grace = now - self._since, self._attempt.grace
        if waited >= 2 * grace:
            log.warning("job %d did not stop; it resumes from its last checkpoint", self._attempt.job.id)
            with suppress(QueueError):
                claims.give_back(self._attempt.job)
            os._exit(_LOST)
        if waited >= grace and not self._interrupted:
            self._interrupted = True
            os.kill(os.getpid(), signal.SIGTERM)
