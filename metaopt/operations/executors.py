"""Workers that a scheduler starts: processes of this machine, jobs of Slurm, or tasks of Ray.

The scheduler gives the machines, the queue gives the jobs. Each process that it starts is a worker as any other, so
claims, leases, requests and resuming are the same.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..core.config import Options, option
from ..core.dependencies import import_extra
from ..core.errors import InvalidConfig, JobError
from ..core.signals import terminable
from ..core.text import counted, reason_of, shortened
from .back_off import BackOff
from .claims import Claims
from .database import queue_url
from .job_process import PATIENCE
from .queue import JobQueue
from .worker import WorkerConfig, work

log = logging.getLogger(__name__)

HERE = "here"
"""The executor that is this process."""

_LONGEST = 2000  # of the error of a worker [characters]
_MINUTES = 60 * 24 * 365  # of a worker on this machine, which submitit would end after two [min]
_END_WITHIN = 120.0  # for workers to end when the queue is empty [s]
_VARIABLES = ("METAOPT_", "MLFLOW_")  # of the environment, which the processes of Ray do not have


class WorkersConfig(WorkerConfig):
    """Configuration of a worker, or of several that a scheduler starts."""

    executor: str = option(
        default=HERE,
        help="Who starts the workers: this process is one (here), processes of this machine (local), Slurm, or Ray.",
        choices=(HERE, "local", "slurm", "ray"),
    )
    workers: int = option(default=1, help="Workers at the same time, for an executor [count].", at_least=1)
    executor_options: Options = option(
        default={},
        help="Options of the executor, such as timeout_min=60 slurm_partition=gpu gpus_per_node=1, or num_gpus=1 for "
        "ray.",
    )

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if self.executor == HERE and (self.workers > 1 or self.executor_options):
            raise InvalidConfig("workers and executor_options are for an executor; add --executor local, slurm or ray")

    def one(self) -> WorkerConfig:
        """The configuration of each worker; it ends when nothing is left."""
        values = {name: getattr(self, name) for name in WorkerConfig.names()}
        return replace(WorkerConfig.from_mapping(values), until_empty=True)


class Started(Protocol):
    """A worker that a scheduler was asked to start."""

    @property
    def name(self) -> str:
        """What the scheduler calls it."""

    def has_ended(self) -> bool:
        """Whether it has ended, well or not."""

    def attempts(self) -> int:
        """Attempts of an ended worker [count].

        Raises:
            Exception: the worker failed.
        """

    def cancel(self) -> None:
        """Ask it to end, which lets its job stop."""


Start = Callable[[WorkerConfig], Started]
"""Asks a scheduler to start a worker."""


def run_workers(config: WorkersConfig) -> int:
    """Run jobs in this process, or by workers of an executor until no job is left that could run.

        from metaopt.operations.executors import WorkersConfig, run_workers

        run_workers(WorkersConfig(queue="queue.db", until_empty=True))

    A worker that ends while jobs are left, as by its time limit, is started again.

    Returns: attempts that were run [count].
    Raises:
        InvalidConfig: the package of the executor is missing, or it does not know an option.
        JobError: the slot has a worker, or the workers of the executor fail.
        QueueError: the queue cannot be used.
    """
    if config.executor == HERE:
        return work(config)
    with JobQueue(config.queue, create=False) as queue:
        queue.database.patience = PATIENCE
        start = _starter(config, queue.database.folder / "operations" / config.executor)
        with terminable():
            return _Crew(config, start, Claims(queue)).run()


class _Crew:
    """Keeps a number of workers at work.

    Args:
        start: asks for a worker.
    """

    def __init__(self, config: WorkersConfig, start: Start, claims: Claims) -> None:
        self.config, self.start, self.claims = config, start, claims
        self.working: list[Started] = []
        self.back_off = BackOff(config.first_pause, config.longest_pause)
        self.failures = 0  # in a row [count]
        self.attempts = 0

    def run(self) -> int:
        """Work until no job is left that could run; returns the number of attempts."""
        try:
            while not self.claims.is_empty(self.config.device):
                while len(self.working) < self.config.workers and self._start_one():
                    log.info("started worker %s (%s)", self.working[-1].name, self.config.executor)
                self._collect()
                time.sleep(self.config.poll)
            end = time.monotonic() + _END_WITHIN
            while self.working and time.monotonic() < end:
                self._collect()
                time.sleep(self.config.poll)
        finally:  # also those that the scheduler has not started yet
            for each in self.working:
                each.cancel()
        return self.attempts

    def _start_one(self) -> bool:
        try:
            self.working.append(self.start(self.config.one()))
        except (RuntimeError, OSError) as error:  # of submitit, when Slurm does not respond
            self._failed("a new worker", error)
            return False
        return True

    def _collect(self) -> None:
        """Count what ended workers did."""
        for each in [each for each in self.working if each.has_ended()]:
            self.working.remove(each)
            try:
                attempts = each.attempts()
            except Exception as error:
                self._failed(f"worker {each.name}", error)
            else:
                self.attempts, self.failures = self.attempts + attempts, 0
                log.info("worker %s ended after %s", each.name, counted(attempts, "attempt"))

    def _failed(self, worker: str, error: Exception) -> None:
        """Pause after a failure, or give up after too many."""
        self.failures += 1
        reason = shortened(reason_of(error), _LONGEST)
        log.warning("%s failed: %s", worker, reason)
        if self.failures > 2 * self.config.workers:
            raise JobError(f"{counted(self.failures, 'worker')} failed in a row, the last one by: {reason}") from error
        time.sleep(self.back_off.delay(self.failures))


def _starter(config: WorkersConfig, folder: Path) -> Start:
    """What starts workers with an executor.

    Args:
        folder: for the files of submitit.
    """
    return _ray_starter(config) if config.executor == "ray" else _submitit_starter(config, folder)


@dataclass
class _Submitted:
    """A worker in a job of submitit."""

    job: Any

    @property
    def name(self) -> str:
        return str(self.job.job_id)

    def has_ended(self) -> bool:
        return bool(self.job.done())

    def attempts(self) -> int:
        return sum(self.job.results())

    def cancel(self) -> None:
        self.job.cancel(check=False)


def _submitit_starter(config: WorkersConfig, folder: Path) -> Start:
    submitit = import_extra("submitit", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=folder.absolute(), cluster=config.executor)
        limit = {"timeout_min": _MINUTES} if config.executor == "local" else {}
        executor.update_parameters(**{"name": "metaopt", **limit, **config.executor_options})
    except (NameError, ValueError, TypeError, RuntimeError) as error:
        raise InvalidConfig(f"{config.executor} cannot start workers: {reason_of(error)}") from error
    return lambda worker: _Submitted(executor.submit(_work_for_submitit, worker, Path.cwd()))


def _work_for_submitit(config: WorkerConfig, folder: Path) -> int:
    import submitit

    here = submitit.JobEnvironment()
    return _work_in(folder, config, f"job {here.job_id}" + (f" {here.global_rank}" if here.num_tasks > 1 else ""))


@dataclass
class _Task:
    """A worker in a task of Ray."""

    ray: Any
    reference: Any
    grace: float

    @property
    def name(self) -> str:
        return str(self.reference.task_id().hex())

    def has_ended(self) -> bool:
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def attempts(self) -> int:
        return int(self.ray.get(self.reference))

    def cancel(self) -> None:
        self.ray.cancel(self.reference)
        self.ray.wait([self.reference], timeout=self.grace)  # a local Ray ends with this process


def _ray_starter(config: WorkersConfig) -> Start:
    ray = import_extra("ray", "ray")
    if not ray.is_initialized():
        # Without RAY_ADDRESS this starts a local cluster. Both end with this process.
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    has_gpu = config.device is not None and config.device.startswith("cuda")
    try:
        options = {"num_cpus": 1, "num_gpus": int(has_gpu), "max_retries": 0, **config.executor_options}
        remote = ray.remote(**options)(_work_for_ray)
    except (ValueError, TypeError) as error:
        raise InvalidConfig(f"ray cannot start workers: {reason_of(error)}") from error
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}

    def start(worker: WorkerConfig) -> Started:
        named = replace(worker, queue=queue_url(worker.queue))
        return _Task(ray, remote.remote(named, Path.cwd(), variables), worker.grace)

    return start


def _work_for_ray(config: WorkerConfig, folder: Path, variables: Mapping[str, str]) -> int:
    import ray

    os.environ.update(variables)
    return _work_in(folder, config, f"task {ray.get_runtime_context().get_task_id()}")


def _work_in(folder: Path, config: WorkerConfig, name: str) -> int:
    """Work in a slot of its own: the scheduler decides how many workers a machine has.

    Args:
        folder: where relative paths start.
        name: of the process, unique in the cluster.
    """
    os.chdir(folder)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("metaopt").setLevel(logging.INFO)
    return work(replace(config, slot=name if config.slot is None else f"{config.slot} {name}"))
