"""What runs many recordings: this process, processes beside it, or a Ray cluster."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.dependencies import import_extra
from ..core.processes import map_in_processes
from ..core.progress import progress
from ..core.tracker import Parent
from ..tasks import Task, load_task, task_config
from ..trajectories import Trajectory
from .batched import batched_steps
from .config import TrainTargetConfig
from .recording import Outcome, record, steps_of
from .text import count

Ended = Iterator[tuple[TrainTargetConfig, Outcome]]
"""Each run with what became of it, as soon as it has ended."""


@dataclass(frozen=True)
class Job:
    """What a process needs to record some targets side by side."""

    plans: Sequence[TrainTargetConfig]
    parent: Parent

    def steps(self, task: Task) -> int:
        """All steps of all its targets."""
        return sum(steps_of(plan, task) for plan in self.plans)


Answered = tuple[Job, "list[Outcome] | Exception"]
"""A job, and what its process gave."""


def load_task_of(plan: TrainTargetConfig) -> Task:
    """The task of a plan, with its data.

    Raises:
        UnknownName, InvalidConfig, TaskDataError: there is no such task, or it cannot be had.
    """
    return load_task(plan.task, **task_config(plan.task, plan.task_options, plan.data_dir))


def run_here(jobs: Sequence[Job], task: Task) -> Ended:
    """Record one job after the other."""
    with progress(sum(job.steps(task) for job in jobs), _title(jobs)) as bar:
        for job in jobs:
            yield from zip(job.plans, record(job.plans, task, job.parent, batched_steps, bar), strict=True)


def run_in_processes(jobs: Sequence[Job], workers: int) -> Ended:
    """Record several jobs at a time, each in a process of its own."""
    yield from _counted(jobs, ((jobs[index], answer) for index, answer in map_in_processes(_record_job, jobs, workers)))


def run_on_ray(jobs: Sequence[Job], workers: int) -> Ended:
    """Record on the Ray cluster that RAY_ADDRESS names, or on one of this machine with `workers` workers.

    All machines must see the same trajectory and checkpoint folders and the same tracking server.

    Raises:
        InvalidConfig: Ray is not installed.
    """
    ray = import_extra("ray", "ray")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(_record_job_in)
        yield from _counted(jobs, _answers(ray, {remote.remote(Path.cwd(), job): job for job in jobs}))
    finally:
        if started:
            ray.shutdown()


def _record_job(job: Job) -> list[Outcome]:
    task = load_task_of(job.plans[0])
    with progress(job.steps(task), _title([job])) as bar:
        return record(job.plans, task, job.parent, batched_steps, bar)


def _record_job_in(folder: Path, job: Job) -> list[Outcome]:
    os.chdir(folder)  # where the paths of the job, and of a local tracking store, start
    return _record_job(job)


def _title(jobs: Sequence[Job]) -> str:
    first, *others = (plan for job in jobs for plan in job.plans)
    return f"{first.title}, " + (f"{count(1 + len(others), 'run')}" if others else f"random seed {first.seed}")


def _counted(jobs: Sequence[Job], answered: Iterator[Answered]) -> Ended:
    """Show how many runs have ended, where others do them, and how the last one did."""
    with progress(sum(len(job.plans) for job in jobs), _title(jobs), "run") as bar:
        for job, answer in answered:
            for plan, outcome in _paired(job, answer):
                losses = Trajectory.open(outcome).losses(-1) if isinstance(outcome, Path) else {}
                bar.update(1, **losses)
                yield plan, outcome


def _answers(ray: Any, waiting: dict[Any, Job]) -> Iterator[Answered]:
    """Jobs with what became of them, as soon as they have ended."""
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done), _answer(ray, done)


def _paired(job: Job, answer: list[Outcome] | Exception) -> Ended:
    """One answer per plan; what ended the whole job ended each of them."""
    outcomes = [answer] * len(job.plans) if isinstance(answer, Exception) else answer
    return zip(job.plans, outcomes, strict=True)


def _answer(ray: Any, reference: Any) -> list[Outcome] | Exception:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error
