"""Phase 1: trains networks with consecutive random seeds and records their trajectories."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..adapters.fine_tuning import FineTuning
from ..core.dependencies import import_extra
from ..core.devices import CPU, find_device, threads_for
from ..core.errors import RunsFailed
from ..core.text import counted
from ..core.tracker import FINAL_VAL_LOSS, Parent, SameRun, Tracker
from ..probes import applicable
from ..tasks import Task
from ..tasks.measure import check_network
from ..trajectories import Trajectory, check_run_name, claim_run_folder
from ..trajectories.recording_file import RECORDING_FILE, RECORDING_TAG, local_trajectories, recording_json
from ..trajectories.run_folder import ClaimedFolder
from .config import TrainTargetConfig
from .executors import Job, Outcomes, run_here, run_in_processes, run_on_ray
from .run import Outcome, resume_error
from .state import TargetTrainingState

log = logging.getLogger(__name__)


def train_targets(config: TrainTargetConfig, tracker: Tracker) -> list[Path]:
    """Train `config.runs` networks with consecutive random seeds and record a trajectory of each.

        from metaopt.core.tracker import SilentTracker
        from metaopt.recording.record import TrainTargetConfig, train_targets

        config = TrainTargetConfig(run_name="mlp", target_model="MLP", lr="1e-3:4e-3", runs=2, epochs=1)
        folders = train_targets(config, SilentTracker())  # [trajectories/mlp/seed_0, trajectories/mlp/seed_1]

    A single run uses the tracker itself, each of several runs a child of it. A failed run does not stop the others.

    Returns: the folders of the trajectories, in the order of their random seeds.
    Raises:
        UnknownName, InvalidConfig: the configuration contains an unknown name or an invalid value; nothing was written.
        TaskDataError: the task's data is missing or unreadable; nothing was written.
        RunNameError: the run name is invalid, taken or in use, or there is no run of this name to resume.
        CheckpointError: the run to resume has other settings.
        Diverged: a loss or a weight is not finite; the earlier snapshots are kept.
        StorageError: the disk is full; everything written before is kept.
        RunsFailed: some of several runs failed for such reasons, which the message states; the others are complete.
    """
    with prepared_recording(config) as recording:
        return recording.run(tracker)


@dataclass(frozen=True)
class PreparedRecording:
    """A recording whose configuration is checked and whose folder is locked. Nothing has been changed yet.

    Attributes:
        weights: number of weights that train side by side [count].
        tuning: what the networks start from, read once for all runs of this process.
    """

    config: TrainTargetConfig
    task: Task
    folder: ClaimedFolder
    weights: int
    tuning: FineTuning | None = None

    def run(self, tracker: Tracker) -> list[Path]:
        """Record the trajectories, as `train_targets` does."""
        config, configs = self.config, self.config.single_runs()
        self.folder.clear()
        if len(configs) > 1:
            _describe(config, tracker)
        with threads_for(self.weights, config.threads):
            found = _logged(_run(configs, self.task, tracker, self.tuning), len(configs))
            outcomes = {each.seed: outcome for each, outcome in found}
        _log_recording(self.folder.path, tracker)
        folders = _folders([outcomes[each.seed] for each in configs], configs)
        if len(configs) > 1:
            _describe_result(folders, tracker)
        return folders


@contextmanager
def prepared_recording(config: TrainTargetConfig) -> Iterator[PreparedRecording]:
    """Check all that can be checked, and lock the folder during the block, before a run starts in a tracking store.

    Raises:
        MetaoptError: the recording is refused, as in `train_targets`; nothing was changed.
    """
    task = config.load_task()
    configs = config.single_runs()
    state = TargetTrainingState.from_config(configs[0], task, CPU)
    if config.engine == "ray":  # the machines of a Ray cluster may have other devices
        import_extra("ray", "ray")
    else:
        check_network(state.model.to(find_device(config.device)), task)
    if config.probes:
        applicable(config.probes, state.model, task)
    weights, tuning = state.layout.size * config.vectorize, state.tuning
    del state  # a network that nobody needs any more would take memory as long as all others train
    folder = config.trajectory_dir / check_run_name(config.run_name)
    with claim_run_folder(folder, "seed_*", resume=config.resume, overwrite=config.overwrite) as claimed:
        if config.resume:
            _check_resumable(configs, task, tuning)
        yield PreparedRecording(config, task, claimed, weights, tuning)


def _check_resumable(configs: Sequence[TrainTargetConfig], task: Task, tuning: FineTuning | None) -> None:
    """Raise if no run can be resumed; one of several that cannot fails alone."""
    outcomes = [resume_error(config, task, tuning) or config.run_folder for config in configs]
    if all(isinstance(outcome, Exception) for outcome in outcomes):
        _folders(outcomes, configs)


def _describe(config: TrainTargetConfig, tracker: Tracker) -> None:
    tracker.describe(
        purpose=f"Phase 1: trains {config.title} {config.runs} times with {config.base_optimizer} at lr {config.lr} "
        f"for {counted(config.epochs, 'epoch')}, random seeds from {config.seed}; each run below records a trajectory."
    )
    tracker.tags({"metaopt.phase": "targets", "metaopt.run_name": config.run_name})
    tracker.params(config.to_mapping())
    tracker.text(config.to_json(), "config.json")


def _describe_result(folders: Sequence[Path], tracker: Tracker) -> None:
    trajectories = [Trajectory.open(folder) for folder in folders]
    losses = [last["val_loss"] for each in trajectories if "val_loss" in (last := each.losses(-1))]
    if losses:
        tracker.describe(result=describe_recordings(losses))
        mean, last_step = fmean(losses), max(each.steps[-1] for each in trajectories)
        tracker.metrics({"val_loss": mean, FINAL_VAL_LOSS: mean}, last_step)


def _log_recording(folder: Path, tracker: Tracker) -> None:
    """Log which trajectories the recording consists of, those of the runs that it resumed included."""
    runs = {name: run_id for name, run_id in local_trajectories(folder).items() if run_id is not None}
    if runs:
        tracker.text(recording_json(runs), RECORDING_FILE)
        tracker.tags({RECORDING_TAG: len(runs)})


def _run(configs: Sequence[TrainTargetConfig], task: Task, tracker: Tracker, tuning: FineTuning | None) -> Outcomes:
    first, size = configs[0], configs[0].vectorize
    here = first.engine == "local" and first.workers == 1
    parent: Parent = SameRun(tracker) if len(configs) == 1 else tracker if here else tracker.picklable_parent()
    jobs = [Job(configs[start : start + size], parent) for start in range(0, len(configs), size)]
    if here or len(configs) == 1:
        return run_here(jobs, task, tuning)
    return run_on_ray(jobs, first.workers) if first.engine == "ray" else run_in_processes(jobs, first.workers)


def _logged(outcomes: Outcomes, total: int) -> Outcomes:
    """The same outcomes; logs a line for each of several runs."""
    for number, (config, outcome) in enumerate(outcomes, start=1):
        failed = isinstance(outcome, Exception)
        if total > 1:
            level, result = (logging.ERROR, f"failed: {outcome}") if failed else (logging.INFO, "recorded")
            log.log(level, "%d of %d: random seed %d %s", number, total, config.seed, result)
        yield config, outcome


def _folders(outcomes: Sequence[Outcome], configs: Sequence[TrainTargetConfig]) -> list[Path]:
    """The folders of all runs; raises if a run failed."""
    pairs = zip(configs, outcomes, strict=True)
    errors = {config.seed: outcome for config, outcome in pairs if isinstance(outcome, Exception)}
    if len(configs) == 1 and errors:
        raise errors[configs[0].seed]
    if errors:
        reasons = "; ".join(f"random seed {seed}: {error}" for seed, error in errors.items())
        raise RunsFailed(
            f"{len(errors)} of {len(configs)} runs failed ({reasons}). The others are in "
            f"{configs[0].trajectory_dir / configs[0].run_name} and can be used"
        ) from next(iter(errors.values()))
    return [outcome for outcome in outcomes if isinstance(outcome, Path)]


def describe_recordings(losses: Sequence[float]) -> str:
    """The result of several runs.

    Args:
        losses: their last validation losses, at least one.
    """
    spread = f"**{fmean(losses):.4g}** on average ({min(losses):.4g} to {max(losses):.4g})"
    return f"validation loss at the end {spread} in {len(losses)} trajectories."


__all__ = ["TrainTargetConfig", "train_targets"]
