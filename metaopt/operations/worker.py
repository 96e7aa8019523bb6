"""A worker: claims jobs and runs each in a process of its own.

The processes are forked from one that has imported torch and MLflow and does nothing else, so that a job starts at
once. A worker never trains itself: it goes on whatever happens to a job.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from ..core.config import Config, option
from ..core.errors import InvalidConfig, JobError
from ..core.folders import cache_dir
from ..core.process_identity import is_gone, process_of, this_process
from ..core.text import counted, shown
from .back_off import BackOff
from .claims import Claims
from .job_process import PATIENCE, Attempt, run_attempt
from .jobs import Job, Owner, State
from .leases import LeaseWatch
from .queue import JobQueue
from .rows import WorkerRow

log = logging.getLogger(__name__)

_FORK = multiprocessing.get_context("forkserver")
_REPORT_EVERY = 5.0  # of a worker, in the table [s]
_KILL_AFTER = 10.0  # time for the process of a job to end after SIGTERM, beyond the grace [s]


class WorkerConfig(Config):
    """Configuration of a worker."""

    queue: str | None = option(
        default=None, help="Queue: a file of SQLite or postgresql://…; by default METAOPT_QUEUE, else queue.db."
    )
    device: str | None = option(
        default=None, help="Device of its jobs, such as cuda:0; none: each job chooses, and jobs that need one wait."
    )
    slot: str | None = option(
        default=None, help="Place on this machine where one worker runs one job at a time; by default its device."
    )
    until_empty: bool = option(default=False, help="End when no job is left that could run.")
    log_dir: Path | None = option(
        default=None, help="Folder of the log files; by default operations/logs beside the queue."
    )
    poll: float = option(default=1.0, help="Time between looks at the queue [s].", above=0.0, at_most=30.0)
    beat: float = option(default=1.0, help="Time between reports of a job [s].", above=0.0, at_most=60.0)
    grace: float = option(
        default=120.0, help="Time for a job to stop by itself before it is interrupted [s].", above=0.0, at_most=86400.0
    )
    first_pause: float = option(
        default=5.0, help="Pause of a job after its first crash [s]; it doubles with each.", at_least=0.0
    )
    longest_pause: float = option(default=300.0, help="Longest pause of a job after a crash [s].", at_least=0.0)
    trust_config: bool = option(
        default=False,
        help="Import code that jobs name (package.module:build); only for a queue to which nobody else can add.",
        runs_code=bool,
    )

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if not self.place.isprintable() or "/" in self.place or len(self.place) > 100:
            raise InvalidConfig(f"slot is {shown(self.place)}; expected a name of at most 100 characters without slash")

    @property
    def place(self) -> str:
        """The name of the slot."""
        return self.slot or self.device or "default"


def work(config: WorkerConfig) -> int:
    """Run jobs until a signal, or until none is left. SIGTERM and Ctrl-C let the running job stop after its step.

        from metaopt.operations.worker import WorkerConfig, work

        work(WorkerConfig(queue="queue.db", until_empty=True))

    Returns: attempts that were run [count].
    Raises:
        JobError: the slot has a worker.
        QueueError: the queue cannot be used.
    """
    back_off = BackOff(config.first_pause, config.longest_pause)
    with JobQueue(config.queue, patience=0.0, back_off=back_off) as queue:
        queue.database.patience = PATIENCE
        lock = _slot_file(queue, config.place)
        with _claimed_slot(lock, config.place):
            return Worker(config, queue, lock.with_suffix(".job")).run()


class Worker:
    """The loop of a worker that has its slot.

    Args:
        lock: file that the process of each job locks: one whose worker was killed goes on for a step.
    """

    def __init__(self, config: WorkerConfig, queue: JobQueue, lock: Path) -> None:
        self.config = config
        self.queue = queue
        self.claims = Claims(queue)
        self._lock = lock
        self._watch = LeaseWatch()
        self._stop = threading.Event()
        self._signals = 0
        self._reported: float | None = None
        self._log_dir = (config.log_dir or queue.database.folder / "operations" / "logs").absolute()
        host, identity, now = socket.gethostname(), this_process(), time.time()
        self._owner = Owner(host, os.getpid(), config.place, identity)
        self._row = WorkerRow(host, config.place, os.getpid(), identity, config.device, None, 0, now, now)
        _FORK.set_forkserver_preload(["metaopt.operations.warm_imports"])

    def run(self) -> int:
        """Claim and run jobs until the end; returns the number of attempts."""
        ran = 0
        log.info("worker of %s, slot %s", self.queue.database.place, self.config.place)
        with _handled(self._on_signal):
            try:
                while not self._stop.is_set():
                    self._look_after_jobs()
                    job = self.claims.claim(self._owner, self.config.device) if self._slot_is_free() else None
                    if job is not None:
                        self._run_job(job)
                        ran += 1
                    elif self.config.until_empty and self.claims.is_empty(self.config.device):
                        break
                    else:
                        self._stop.wait(self.config.poll)
            finally:
                self.claims.remove_worker(self._row)
        log.info("worker ends after %s", counted(ran, "attempt"))
        return ran

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._stop.set()

    def _slot_is_free(self) -> bool:
        """Whether no job of an earlier worker of this slot is still finishing its step."""
        try:
            with FileLock(self._lock, timeout=0):
                return True
        except Timeout:
            return False

    def _run_job(self, job: Job) -> None:
        """Run an attempt in a process, and see to it that the table knows its end."""
        self._report(job)
        file = self._log_dir / str(job.id) / f"{job.attempt}.log"
        log.info("job %d, %s: attempt %d, messages in %s", job.id, job.name, job.attempt, file)
        attempt = Attempt(
            job=job,
            url=self.queue.database.url.render_as_string(hide_password=False),
            back_off=self.queue.back_off,
            host=self._owner.host,
            slot=self.config.place,
            lock=self._lock,
            log=file,
            device=self.config.device,
            trusted=self.config.trust_config,
            beat_every=self.config.beat,
            grace=self.config.grace,
        )
        own_end, other_end = _FORK.Pipe()
        process = _FORK.Process(target=run_attempt, args=(attempt, other_end), name=f"job {job.id}")
        process.start()
        other_end.close()
        identity, told, killed = process_of(process.pid or 0), False, 0
        while not _has_ended(process, identity, self.config.poll):
            if self._stop.is_set() and not told:
                with suppress(OSError):
                    own_end.send("stop")
                told = True
            if self._signals > 1 + killed:  # the person does not want to wait
                killed += 1
                process.terminate()
            self._look_after_jobs(job, process)
        own_end.close()
        code = process.exitcode
        self.claims.crashed(job, _describe_end(code, file))  # no effect if the process has recorded its end
        found = self.queue.get(job.id)
        log.info("job %d, %s: %s%s", job.id, job.name, found.state, f", {found.error}" if found.error else "")
        self._report(None)

    def _look_after_jobs(self, own: Job | None = None, process: BaseProcess | None = None) -> None:
        """Give abandoned jobs to the next worker, and report.

        Args:
            own: the job that this worker runs, in its process.
        """
        for job, reason in self._watch.abandoned(self.claims.running()):
            is_own = own is not None and (job.id, job.attempt) == (own.id, own.attempt)
            if is_own and process is not None and process.is_alive():
                log.warning("job %d is ended: %s", job.id, reason)
                process.kill()
                process.join(_KILL_AFTER)
            if self.claims.crashed(job, reason, job.beat):
                log.warning("job %d is given to another process: %s", job.id, reason)
        if own is not None and process is not None and not self._is_ours(own):
            process.join(_KILL_AFTER)  # it notices by itself
            process.kill()
        if self._reported is None or time.monotonic() - self._reported >= _REPORT_EVERY:
            self._report(own)

    def _is_ours(self, job: Job) -> bool:
        found = self.queue.get(job.id)
        return found.state is State.RUNNING and found.attempt == job.attempt

    def _report(self, job: Job | None) -> None:
        row = self._row
        self._row = WorkerRow(
            row.host, row.slot, row.pid, row.identity, row.device, job.id if job else None, row.beat + 1, row.started,
            time.time(),
        )  # fmt: skip
        self.claims.report_worker(self._row)
        self._reported = time.monotonic()


def _has_ended(process: BaseProcess, identity: str | None, timeout: float) -> bool:
    """Wait for the end of a process; without its parent, from which it was forked, only /proc knows."""
    ended = bool(wait([process.sentinel], timeout))
    if ended and identity is not None and not is_gone(identity):
        time.sleep(timeout)
        return is_gone(identity)
    return ended


def _describe_end(code: int | None, file: Path) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; {file} has its last messages"
    return f"its process ended with exit code {code}; {file} has its last messages"


def _slot_file(queue: JobQueue, slot: str) -> Path:
    """The lock of a slot of this machine."""
    digest = hashlib.sha256(queue.database.place.encode()).hexdigest()[:16]
    return cache_dir() / "slots" / f"{socket.gethostname()}-{slot}-{digest}.lock"


@contextmanager
def _claimed_slot(lock: Path, slot: str) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise JobError(
            f"slot {shown(slot)} of this machine has a worker; give another --slot or --device, or end that worker"
        ) from error


@contextmanager
def _handled(handler: object) -> Iterator[None]:
    """Handle the signals that end a process, during the block; SIGUSR2 is that of Slurm before a time limit."""
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    before = {each: signal.getsignal(each) for each in ending}
    for each in before:
        signal.signal(each, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for each, previous in before.items():
            signal.signal(each, previous)
