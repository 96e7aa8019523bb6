"""Phase 1: train targets and record their trajectories."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..core.errors import RunsFailed
from ..core.tracker import OwnRun, Parent, Tracker
from ..tasks import Task
from ..trajectories import Trajectory, check_run_name, claim_run_folder
from .config import TrainTargetConfig, in_groups
from .executors import Ended, Job, load_task_of, run_here, run_in_processes, run_on_ray
from .recording import Outcome, build
from .text import count, recorded_many

log = logging.getLogger(__name__)


def train_targets(config: TrainTargetConfig, tracker: Tracker) -> list[Path]:
    """Train `config.runs` targets with consecutive random seeds, each into a trajectory of its own.

    One target uses the tracker itself, several each a child of it. A run that fails does not stop the others.

    Returns: the folders of the trajectories, in the order of their random seeds.
    Raises:
        UnknownName, InvalidConfig: a name or a value that cannot be; nothing was written.
        TaskDataError: the task's data is missing or unreadable; nothing was written.
        RunNameError: the run name is unfit, taken, in use, or names nothing to resume.
        CheckpointError: the run to resume was started with other settings.
        Diverged: a loss or a weight is not finite; the snapshots before it are kept.
        StorageError: the disk is full; everything written before is kept.
        RunsFailed: of several runs, some failed for such reasons; the message names them, the others are whole.
    """
    task = load_task_of(config)
    plans = config.single_runs()
    build(plans[0], task)  # what cannot be built must not overwrite anything
    folder = config.trajectory_dir / check_run_name(config.run_name)
    with claim_run_folder(folder, "seed_*", resume=config.resume, overwrite=config.overwrite):
        if len(plans) > 1:
            _describe(config, tracker)
        outcomes = {plan.seed: outcome for plan, outcome in _reported(_run(plans, task, tracker), len(plans))}
        folders = _folders([outcomes[plan.seed] for plan in plans], plans)
        if len(plans) > 1:
            _conclude(folders, tracker)
    return folders


def _describe(config: TrainTargetConfig, tracker: Tracker) -> None:
    tracker.note(
        does=f"Phase 1: trains {config.title} {config.runs} times with {config.base_optimizer} at lr {config.lr} for "
        f"{count(config.epochs, 'epoch')}, random seeds from {config.seed}; each run below records a trajectory."
    )
    tracker.tags({"metaopt.phase": "targets", "metaopt.run_name": config.run_name})
    tracker.params(config.to_mapping())
    tracker.text(config.to_json(), "config.json")


def _conclude(folders: Sequence[Path], tracker: Tracker) -> None:
    """Say how the trainings ended, all together."""
    trajectories = [Trajectory.open(folder) for folder in folders]
    losses = [ends["val_loss"] for each in trajectories if "val_loss" in (ends := each.losses(-1))]
    if losses:
        tracker.note(result=recorded_many(losses))
        tracker.metrics({"val_loss": fmean(losses)}, max(each.steps[-1] for each in trajectories))


def _run(plans: Sequence[TrainTargetConfig], task: Task, tracker: Tracker) -> Ended:
    config = plans[0]
    here = config.engine == "local" and config.workers == 1
    parent: Parent = OwnRun(tracker) if len(plans) == 1 else tracker if here else tracker.elsewhere()
    jobs = [Job(group, parent) for group in in_groups(plans, config.vectorize)]
    if here or len(plans) == 1:
        return run_here(jobs, task)
    return run_on_ray(jobs, config.workers) if config.engine == "ray" else run_in_processes(jobs, config.workers)


def _reported(ended: Ended, count: int) -> Ended:
    """The same, with a line for each run of several."""
    for number, (plan, outcome) in enumerate(ended, start=1):
        if count > 1:
            failed = isinstance(outcome, Exception)
            log.log(
                logging.ERROR if failed else logging.INFO,
                "%d of %d: random seed %d %s", number, count, plan.seed, f"failed: {outcome}" if failed else "recorded",
            )  # fmt: skip
        yield plan, outcome


def _folders(outcomes: Sequence[Outcome], plans: Sequence[TrainTargetConfig]) -> list[Path]:
    failed = {
        plan.seed: outcome for plan, outcome in zip(plans, outcomes, strict=True) if isinstance(outcome, Exception)
    }
    if len(plans) == 1 and failed:
        raise failed[plans[0].seed]
    if failed:
        reasons = "; ".join(f"random seed {seed}: {reason}" for seed, reason in failed.items())
        raise RunsFailed(
            f"{len(failed)} of {len(plans)} runs failed ({reasons}). The others are in "
            f"{plans[0].trajectory_dir / plans[0].run_name} and can be used"
        ) from next(iter(failed.values()))
    return [outcome for outcome in outcomes if isinstance(outcome, Path)]


__all__ = ["TrainTargetConfig", "train_targets"]
