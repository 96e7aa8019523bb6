"""Executors of many runs: this process, worker processes, or a Ray cluster."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.fine_tuning import FineTuning
from ..core.dependencies import import_extra
from ..core.processes import map_in_processes
from ..core.progress import progress
from ..core.text import counted
from ..core.tracker import Parent
from ..tasks import Task
from ..trajectories import Trajectory
from .config import TrainTargetConfig
from .group import record_group
from .run import Outcome

Outcomes = Iterator[tuple[TrainTargetConfig, Outcome]]
"""Each run with its outcome, in the order in which the runs end."""


@dataclass(frozen=True)
class Job:
    """Runs that one process records side by side. Picklable."""

    configs: Sequence[TrainTargetConfig]
    parent: Parent

    def step_count(self, task: Task) -> int:
        """Number of training steps of all runs [steps]."""
        return sum(config.step_count(task) for config in self.configs)


JobResult = list[Outcome] | Exception
"""The outcome of each run of a job, or the error that ended the whole job."""


def run_here(jobs: Sequence[Job], task: Task, tuning: FineTuning | None = None) -> Outcomes:
    """Run one job after the other in this process."""
    with progress(sum(job.step_count(task) for job in jobs), _title(jobs)) as bar:
        for job in jobs:
            yield from zip(job.configs, record_group(job.configs, task, job.parent, bar, tuning), strict=True)


def run_in_processes(jobs: Sequence[Job], workers: int) -> Outcomes:
    """Run up to `workers` jobs at a time, each in a process of its own."""
    results = map_in_processes(_record_job, jobs, workers)
    yield from _with_progress(jobs, ((jobs[index], result) for index, result in results))


def run_on_ray(jobs: Sequence[Job], workers: int) -> Outcomes:
    """Run jobs on the Ray cluster that RAY_ADDRESS names, or on a local one with `workers` workers.

    All machines must share the trajectory and checkpoint folders and the tracking server.

    Raises:
        InvalidConfig: Ray is not installed.
    """
    ray = import_extra("ray", "ray")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote = ray.remote(num_cpus=1, num_gpus=_gpus_per_worker(ray, jobs, workers), max_retries=0)(_record_job_in)
        yield from _with_progress(jobs, _ray_results(ray, {remote.remote(Path.cwd(), job): job for job in jobs}))
    finally:
        if started:
            ray.shutdown()


def _gpus_per_worker(ray: Any, jobs: Sequence[Job], workers: int) -> float:
    """The share of a GPU that each worker reserves: Ray hides all GPUs from workers that reserve none."""
    gpus = ray.cluster_resources().get("GPU", 0.0)
    return 0.0 if jobs[0].configs[0].device == "cpu" else min(gpus / workers, 1.0)


def _record_job(job: Job) -> list[Outcome]:
    task = job.configs[0].load_task()
    with progress(job.step_count(task), _title([job])) as bar:
        return record_group(job.configs, task, job.parent, bar)


def _record_job_in(folder: Path, job: Job) -> list[Outcome]:
    os.chdir(folder)  # relative paths of the job, and of a local tracking store, start here
    return _record_job(job)


def _title(jobs: Sequence[Job]) -> str:
    first, *others = (config for job in jobs for config in job.configs)
    return f"{first.title}, " + (f"{counted(1 + len(others), 'run')}" if others else f"random seed {first.seed}")


def _with_progress(jobs: Sequence[Job], results: Iterator[tuple[Job, JobResult]]) -> Outcomes:
    """Show the number of finished runs and the last losses of the latest one."""
    with progress(sum(len(job.configs) for job in jobs), _title(jobs), "run") as bar:
        for job, result in results:
            for config, outcome in _outcomes(job, result):
                losses = Trajectory.open(outcome).losses(-1) if isinstance(outcome, Path) else {}
                bar.update(1, **losses)
                yield config, outcome


def _outcomes(job: Job, result: JobResult) -> Outcomes:
    """The outcome of each run; an error of the whole job is the outcome of each."""
    outcomes = [result] * len(job.configs) if isinstance(result, Exception) else result
    return zip(job.configs, outcomes, strict=True)


def _ray_results(ray: Any, waiting: dict[Any, Job]) -> Iterator[tuple[Job, JobResult]]:
    """Jobs with their results, in the order in which they end."""
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done), _ray_result(ray, done)


def _ray_result(ray: Any, reference: Any) -> JobResult:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error
