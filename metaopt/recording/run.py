"""One run of phase 1: trains a network and records its trajectory, from the first step or from a checkpoint.

A run is a generator of training steps. The caller executes each step, separately or batched with the steps of other
runs, and sends the loss back to the generator.
"""

import logging
import math
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any, NoReturn

import torch

from ..adapters.fine_tuning import FineTuning, describe_adapters
from ..core.clock import fires
from ..core.control import StopRequested, control
from ..core.devices import device_name, find_device
from ..core.errors import CheckpointError, Diverged, MetaoptError
from ..core.progress import Progress, sub_progress
from ..core.text import counted
from ..core.tracker import FINAL_VAL_LOSS, Parent, SilentTracker, Tracker
from ..figures import line_chart
from ..optimizers import evaluation_mode
from ..tasks import TASKS, Task
from ..tasks.measure import batches_of, measure
from ..trajectories import Recorder, Trajectory, write_task
from ..trajectories.ledger_entry import TrainingFacts, remove_checkpoint
from ..trajectories.origin import Generator as Maker
from ..trajectories.origin import Origin, data_set, write_origin
from ..trajectories.recorder import SNAPSHOT, snapshot_files
from ..trajectories.recording_file import UPLOAD_FOLDER, read_run_id, write_run_id
from ..weights.atomic import remove_unfinished
from ..weights.files import read_facts
from .config import TrainTargetConfig
from .growth_figure import growth_figure
from .growth_report import describe_growth, growth_metrics, growth_report
from .level_metrics import level_figure, surprise_metrics, update_metrics
from .probing import TrainingProbes
from .state import Step, TargetTrainingState

log = logging.getLogger(__name__)

RunSteps = Generator[Step, float, Path]
"""Generator that yields each training step, receives its loss, and returns the trajectory folder."""

Outcome = Path | Exception
"""The folder of the recorded trajectory, or the exception with which the run failed."""


def run_steps(
    config: TrainTargetConfig, task: Task, parent: Parent, bar: Progress, tuning: FineTuning | None = None
) -> RunSteps:
    """Yield the training steps of one run, record its trajectory and write checkpoints."""
    name = f"{config.run_name} seed {config.seed}"
    with sub_progress(bar, config.step_count(task)) as run_bar, parent.child(name) as tracker:
        folder = yield from _TargetRun(config, task, tracker, tuning).steps(run_bar)
    return folder


def resume_error(config: TrainTargetConfig, task: Task, tuning: FineTuning | None = None) -> MetaoptError | None:
    """Why a run cannot be resumed; None if it can, or has not begun. Nothing is changed."""
    try:
        _TargetRun(replace(config, device="cpu"), task, SilentTracker(), tuning).load()
    except MetaoptError as error:
        return error
    return None


class _TargetRun:
    """One run with its training state, its files and its tracker."""

    def __init__(
        self, config: TrainTargetConfig, task: Task, tracker: Tracker, tuning: FineTuning | None = None
    ) -> None:
        self.config = config
        self.tracker = tracker
        self.state = TargetTrainingState.from_config(config, task, find_device(config.device), tuning)
        self.probes = TrainingProbes(config.probes, self.state.model, task) if config.probes else None
        self.folder = config.trajectory_dir / config.run_folder
        self.checkpoint = config.checkpoint_dir / config.run_folder / "checkpoint.safetensors"
        self.data_digest = task.digest()
        self.validation: dict[str, float] = {}
        self.settings = {
            "snapshot_every": config.snapshot_every,
            "snapshot_dtype": config.snapshot_dtype,
            "keep_last": config.keep_last,
            "data": self.data_digest,
        }

    def steps(self, bar: Progress) -> RunSteps:
        """Train until the last epoch."""
        self._restore()
        if self.state.epoch >= self.config.epochs and self._is_stored():
            log.info("%s is complete (%d of %d epochs)", self.folder, self.state.epoch, self.config.epochs)
            return self.folder
        self._describe()
        try:
            yield from self._train(bar)
        except Diverged as error:
            self._upload()
            raise Diverged(
                f"{self.state.title}: {error}, after {self.state.step} steps with lr {self.state.facts['lr']:g}. The "
                f"earlier snapshots are kept in {self.folder}. Try a lower lr or another base optimizer"
            ) from error
        self._upload()
        last = Trajectory.open(self.folder).losses(-1)
        if "val_loss" in last:
            self.tracker.metrics({FINAL_VAL_LOSS: last["val_loss"]}, self.state.step)
        if self.tracker.run_id is not None:
            write_run_id(self.folder, self.tracker.run_id)
        return self.folder

    def _is_stored(self) -> bool:
        """Whether the store has the whole trajectory; a process killed during the upload leaves a part of it."""
        if self.tracker.run_id is None:
            return True
        run_id = read_run_id(self.folder)
        return run_id is not None and self.tracker.has_files(run_id, UPLOAD_FOLDER)

    def _restore(self) -> None:
        remove_unfinished(self.checkpoint)
        if not (self.config.resume and snapshot_files(self.folder)):
            remove_checkpoint(self.checkpoint)  # left by an earlier run with the same name
            return
        self.load()
        if self.checkpoint.exists():
            log.info("%s resumes after step %d, in epoch %d", self.state.title, self.state.step, self.state.epoch + 1)
        else:
            log.info("%s has no checkpoint; training starts from the first step", self.state.title)

    def load(self) -> None:
        """Load the checkpoint of a run that has begun, if it has one.

        Raises:
            FileFormatError: a file is damaged.
            CheckpointError: the run has other settings.
        """
        snapshots = snapshot_files(self.folder)
        if not snapshots:
            return
        if self.checkpoint.exists():
            self.state.load(self.checkpoint, self.settings)
            self._check_snapshots()
        else:
            first = snapshots[min(snapshots)]
            self.state.expect_own(read_facts(first, SNAPSHOT), {}, first)

    def _check_snapshots(self) -> None:
        """Check that the snapshots reach to the checkpoint: with a gap before the next one, nobody would notice it."""
        last = max(snapshot_files(self.folder))
        if last < self.state.last_snapshot:
            raise CheckpointError(
                f"the snapshots after step {last} are missing in {self.folder}: its checkpoint {self.checkpoint} is of "
                f"step {self.state.step}. Copy the trajectory again, or start the run again with --overwrite"
            )

    def _describe(self) -> None:
        config, facts = self.config, self.state.facts
        self.tracker.describe(
            purpose=f"Phase 1: trains {config.title} with {config.base_optimizer} at lr {facts['lr']:.3g} for "
            f"{counted(config.epochs, 'epoch')}, random seed {config.seed}, and records the weights during training."
        )
        self.tracker.params(
            {**config.to_mapping(), "lr_drawn": facts["lr"], "trainable_weights": self.state.layout.size}
        )
        self.tracker.tags({"metaopt.phase": "target", "metaopt.run_name": config.run_name, "metaopt.seed": config.seed})
        self.tracker.tags({"metaopt.device": device_name(self.state.device)})
        self.tracker.text(replace(config, resume=False, overwrite=False).to_json(), "config.json")
        if "adapter" in facts:
            log.info("%s: %s", self.state.title, describe_adapters(facts))
            self.tracker.text("\n".join(facts["adapter"]["modules"]) + "\n", "adapted_modules.txt")
        source = str(facts["task_config"].get("data_dir", "part of the installed packages"))
        # One call for all splits: trackers ignore repeated calls with the same digest.
        self.tracker.dataset(config.task, source, self.data_digest, ", ".join(self.state.task.splits))

    def _train(self, bar: Progress) -> Generator[Step, float, None]:
        config, state = self.config, self.state
        recorder = Recorder(
            self.folder,
            state.facts,
            state.layout,
            state.segment,
            dtype=config.snapshot_dtype,
            keep_last=config.keep_last,
            growth=state.growth_seeds,
        )
        bar.skip(state.step)
        write_origin(self.folder, self.origin)
        with recorder:
            if state.step == 0:
                if state.driver is not None:
                    state.driver.start()
                self._record_epoch(recorder, {}, self._validate())
            while state.epoch < config.epochs:
                start = monotonic()
                train_loss = yield from self._train_epoch(recorder, bar)
                validation = self._validate()
                self._record_epoch(recorder, {"train_loss": train_loss}, validation, seconds=monotonic() - start)
                if fires(state.epoch, config.checkpoint_every) or state.epoch == config.epochs:
                    self._save(recorder, train_loss)
        write_task(self.folder, self._task_facts(), last_step=state.step)

    @cached_property
    def origin(self) -> Origin:
        """Command, configuration, data, and what the network starts from and is controlled by."""
        options = TASKS.get(self.config.task).Config.from_mapping(self.state.facts["task_config"])
        data = data_set(self.config.task, options, self.data_digest)
        return Origin(Maker.of("train-target", self.config), (data, *self.state.parents))

    def _about(self, train_loss: float) -> TrainingFacts:
        """What the sidecar of a checkpoint states."""
        return TrainingFacts(
            training="target",
            run_name=self.config.run_folder.as_posix(),
            run_id=self.tracker.run_id,
            step=self.state.step,
            metrics={"train_loss": train_loss, **self.validation},
            origin=self.origin,
        )

    def _train_epoch(self, recorder: Recorder, bar: Progress) -> Generator[Step, float, float]:
        """Train to the end of the epoch and record snapshots; returns the mean training loss.

        Raises:
            StopRequested: the process was asked to stop; the checkpoint is of the latest step.
        """
        losses = self.state.epoch_losses
        for step in self.state.epoch_steps():
            try:
                loss = yield step
            except StopRequested:  # of another run of the same batch
                self._stop(recorder)
            has_grown = self.state.after_step(loss)
            bar.update(loss=loss)
            if has_grown:
                recorder.start_segment(self.state.layout, self.state.growth_seeds)
            if has_grown or (self.config.snapshot_every and fires(self.state.step, self.config.snapshot_every)):
                self._record_snapshot(recorder, {"train_loss": fmean(losses)})
            if control.stop_requested:
                self._stop(recorder)
        return fmean(losses)

    def _stop(self, recorder: Recorder) -> NoReturn:
        self._save(recorder, fmean(self.state.epoch_losses))
        log.info("%s stops after step %d, as requested", self.state.title, self.state.step)
        raise StopRequested

    def _save(self, recorder: Recorder, train_loss: float) -> None:
        """Write a checkpoint.

        Args:
            train_loss: mean over the steps of the epoch so far.
        """
        recorder.flush()  # a checkpoint must not be newer than the snapshots on disk
        if self.state.driver is not None:
            self.state.driver.history.write(self.folder)
        self.state.save(self.checkpoint, self.settings, self._about(train_loss))

    def _validate(self) -> dict[str, float]:
        state = self.state
        batches = batches_of(state.task.splits["validation"], state.task, state.device)
        with evaluation_mode(state.optimizer):
            metrics = measure(state.model, state.task, batches)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"the validation loss is {metrics['loss']}")
        self.validation = {f"val_{name}": value for name, value in metrics.items()}
        return self.validation

    def _level_metrics(self) -> dict[str, float]:
        """Metrics of the levels and the memories of the network; empty if it has none."""
        state = self.state
        with evaluation_mode(state.optimizer):
            surprises = surprise_metrics(state.model, batches_of(state.task.splits["validation"], state.task))
        return {**update_metrics(state.update_norms), **surprises}

    def _record_epoch(
        self, recorder: Recorder, training: Mapping[str, float], validation: Mapping[str, float], **extra: float
    ) -> None:
        """Record a snapshot and the metrics before the first epoch, or at the end of an epoch."""
        self._record_snapshot(recorder, {**training, "val_loss": validation["val_loss"]})
        metrics = {**training, **validation, **self._level_metrics(), **extra, "epoch": self.state.epoch}
        if (budget := self.state.budget) is not None:
            shares = [*budget.shares().values()]
            metrics |= {"delta_share_max": max(shares), "delta_share_mean": fmean(shares)}
        if (driver := self.state.driver) is not None:
            metrics |= growth_metrics(driver.history)
        if self.probes is not None and self.state.step:
            with evaluation_mode(self.state.optimizer):
                metrics |= self.probes.metrics(self.state.model)
        self.tracker.metrics(metrics, self.state.step)

    def _record_snapshot(self, recorder: Recorder, losses: Mapping[str, float]) -> None:
        state = self.state
        with evaluation_mode(state.optimizer):
            weights = state.recorded_weights(getattr(torch, self.config.snapshot_dtype))
            recorder.record(state.model, state.step, state.epoch, losses, weights)
        state.last_snapshot = state.step

    def _task_facts(self) -> dict[str, Any]:
        deviation = self.state.loss_changes.standard_deviation
        return replace(self.state.task.describe(), loss_change_std=deviation).to_mapping()

    def _upload(self) -> None:
        """Upload the trajectory, and log figures of its losses and of its levels, and a summary."""
        if not snapshot_files(self.folder):  # training diverged before the first snapshot
            return
        trajectory = Trajectory.open(self.folder)
        losses = [trajectory.losses(index) for index in range(len(trajectory))]
        title, subtitle = f"Losses of {self.state.title}", "Each loss at the steps at which it was measured"
        figure = line_chart(title, subtitle, "optimizer steps", "loss", trajectory.steps, losses)
        self.tracker.figure(figure, "losses")
        if (norms := self.state.update_norms) is not None:
            self.tracker.figure(level_figure(norms, f"Updates of the levels of {self.state.title}"), "levels")
        if (driver := self.state.driver) is not None:
            title = f"Growth of {self.state.title}"
            self.tracker.figure(growth_figure(title, {"grown": driver.history}, self.state.step), "growth")
            report = growth_report(self.state.title, str(self.config.controller), driver.history)
            self.tracker.text(report, "report.md")
        if self.probes is not None:
            with evaluation_mode(self.state.optimizer):
                self.tracker.text(self.probes.report(self.state.title, self.state.model), "report.md")
        validation = self.validation or {name: loss for name, loss in losses[-1].items() if name.startswith("val_")}
        grown = f" {describe_growth(driver.history)}" if driver is not None else ""
        self.tracker.describe(result=describe_recording(trajectory, validation) + grown)
        self.tracker.files(trajectory.files(), UPLOAD_FOLDER)


def describe_recording(trajectory: Trajectory, metrics: Mapping[str, float]) -> str:
    """Describe the result of one run in a sentence: the last validation metrics and the number of snapshots.

    Args:
        metrics: the last validation metrics by name, such as `val_loss`.
    """
    values = ", ".join(f"{_readable(name)} **{value:.4g}**" for name, value in metrics.items())
    return f"{values} after {trajectory.steps[-1]:,} steps; {counted(len(trajectory), 'snapshot')} recorded."


def _readable(metric: str) -> str:
    return "validation " + metric.removeprefix("val_").replace("_", " ")
