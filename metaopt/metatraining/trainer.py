"""Phase 2: trains a generative optimizer and writes its checkpoints."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NoReturn

from ..core.clock import fires
from ..core.control import StopRequested, control
from ..core.devices import device_name, find_device, threads_for
from ..core.progress import Progress, announced, progress
from ..core.rng import seed_all
from ..core.text import counted
from ..core.tracker import SPEEDUP, Tracker
from ..figures import line_chart
from ..generative import GENERATIVE_OPTIMIZERS
from ..generative.base import SnapshotConfig
from ..generative.files import load_optimizer
from ..generative.sources import source_with_parents
from ..trajectories import claim_run_folder
from ..trajectories.ledger_entry import TrainingFacts, files_beside
from ..trajectories.origin import Generator, Origin, Parent
from ..trajectories.parents import file_parents
from ..trajectories.run_folder import ClaimedFolder
from ..weights.files import files_of
from .config import TrainOptimizerConfig
from .curriculum import read_curriculum
from .evolution import evolved_numbers
from .offline import OfflineSource, recorded_averaging
from .online import OnlineSource
from .source import MetaTrainingSource
from .state import MetaTrainingState
from .trained import FACTS, TrainedOptimizer, describe_validation, stored_metrics, validation_speedups

log = logging.getLogger(__name__)

_ONLINE_AVERAGING = 0.98
"""Default decay of the average of the weights in online rounds: about the last 50 steps."""

_MEASURED_UPDATES = 5
"""Updates whose time is measured, to announce how long a meta-training takes."""


def train_optimizer(config: TrainOptimizerConfig, tracker: Tracker, resume: Path | None = None) -> TrainedOptimizer:
    """Train a generative optimizer, offline on recorded trajectories or online on inner trainings.

        from metaopt.core.tracker import SilentTracker
        from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer

        config = TrainOptimizerConfig(run_name="digits", epochs=1, pairs_per_epoch=8, held_out=1)
        trained = train_optimizer(config, SilentTracker())
        trained.metrics["val_relative_error"]  # 1.0 for an optimizer that predicts no change

    Args:
        resume: checkpoint to resume from; adds `config.epochs` epochs, or `config.rounds` rounds, to those it has.
            With no epochs it is validated, stored and returned again.
    Raises:
        UnknownName, InvalidConfig: the configuration contains an unknown name or an invalid value; nothing was written.
        TrackingError, FileFormatError: the optimizer to start from cannot be loaded.
        TrajectoryError: a trajectory is missing or has a single snapshot, or there are too few to hold any out.
        TaskDataError: the data of a task is missing.
        RunNameError: checkpoints of this name exist, or another process writes them.
        CheckpointError: the checkpoint belongs to another training.
        Diverged: many gradients in a row are not finite; the last checkpoint is kept.
    """
    with prepared_training(config, resume) as training:
        return training.run(tracker)


@contextmanager
def prepared_training(
    config: TrainOptimizerConfig, resume: Path | None = None, trusted_names: Collection[str] = ()
) -> Iterator["MetaTraining"]:
    """Check all that can be checked, and lock the folder during the block, before a run starts in a tracking store.

    Args:
        resume: checkpoint to resume from.
        trusted_names: dotted paths of networks that trajectories may name, because the user gave them in this call.
    Raises:
        MetaoptError: the training is refused, as in `train_optimizer`; nothing was changed.
    """
    device = find_device(config.device)
    start, parents = None, tuple[Parent, ...]()
    if config.start_from:
        start_from, parents = source_with_parents(config.start_from)
        start = load_optimizer(start_from)
    curriculum = read_curriculum(config.curriculum) if config.curriculum else None
    state = MetaTrainingState(
        config.optimizer_model,
        _optimizer_options(config) if start is None else start.config.to_mapping(),
        seed=config.seed,
        lr=config.lr,
        weight_decay=config.weight_decay,
        ema_decay=config.average,
        device=device,
        curriculum=curriculum,
    )
    if start is not None:
        state.start_from(start)
    if config.method == "evolution":
        evolved_numbers(state.model)  # raises before work begins
    history, averaging = state.model.history, state.model.averaging
    source: MetaTrainingSource
    if config.rounds:
        source = OnlineSource(config, history, averaging, device, trusted_names)
    else:
        source = OfflineSource(config, history, averaging, device, trusted_names)
    if curriculum is not None:
        source.check_curriculum(curriculum)
    source.settings["curriculum"] = None if curriculum is None else curriculum.settings()
    if not (config.rounds or source.held_out_names) and config.held_out is None:
        _warn_without_held_out(len(source.training_names))
    if resume is not None:
        deepcopy(state).load(resume, source.settings)
        stored_metrics(resume)
        parents += file_parents(resume)
    with claim_checkpoints(config, resumed=resume is not None) as folder:
        yield MetaTraining(config, state, source, resume, folder, parents)


def claim_checkpoints(config: TrainOptimizerConfig, *, resumed: bool) -> AbstractContextManager[ClaimedFolder]:
    """Lock the folder of the checkpoints of a training during a block.

    Raises:
        RunNameError: checkpoints of this name exist, or another process writes them.
    """
    owned = f"{config.optimizer_model}_epoch_*"
    keep = resumed and any(config.checkpoint_folder.glob(f"{owned}.safetensors"))
    return claim_run_folder(
        config.checkpoint_folder,
        owned,
        resume=keep,
        overwrite=config.overwrite and not keep,
        resume_flag="--resume-from and its last checkpoint",
    )


def _warn_without_held_out(count: int) -> None:
    """Say before the training, which can take hours, that its result will not be measured."""
    log.warning(
        "nothing is held out for validation, because there %s: a quarter is held out, so four or more are needed. The "
        "training will not show whether it helps. Stop it and record four with `metaopt train-target --runs 4`, "
        "or evaluate its result with `metaopt evaluate`",
        "is only 1 trajectory" if count == 1 else f"are only {count} trajectories",
    )


def _optimizer_options(config: TrainOptimizerConfig) -> dict[str, Any]:
    """The options of the optimizer; `averaging` is that of its training data by default."""
    if not issubclass(GENERATIVE_OPTIMIZERS.get(config.optimizer_model).Config, SnapshotConfig):
        return dict(config.optimizer_options)
    averaging = _ONLINE_AVERAGING if config.mixture else recorded_averaging(config)
    return {"averaging": averaging, **config.optimizer_options}


class MetaTraining:
    """A meta-training whose input is checked, and its loop over epochs: training, validation, metrics and checkpoints.

    Args:
        resume: checkpoint to resume from.
        folder: folder of the checkpoints.
        parents: the optimizer to start from and the checkpoint to resume from, for the origin of the result.
    """

    tracker: Tracker

    def __init__(
        self,
        config: TrainOptimizerConfig,
        state: MetaTrainingState,
        source: MetaTrainingSource,
        resume: Path | None,
        folder: ClaimedFolder,
        parents: Sequence[Parent] = (),
    ) -> None:
        self.config = config
        self.state = state
        self.source = source
        self.untrained: dict[str, float] = {}
        self._resume = resume
        self.folder = folder
        self._origin = Origin(Generator.of("train-optimizer", config), (*source.parents, *parents))
        self._minutes = 0.0
        self._speedups: dict[float, dict[str, float]] = {}

    def run(self, tracker: Tracker) -> TrainedOptimizer:
        """Train for the epochs or rounds of the configuration, as `train_optimizer` does."""
        self.tracker = tracker
        tracker.describe(purpose=self.config.purpose)
        tracker.tags({"metaopt.device": device_name(find_device(self.config.device))})
        self.folder.clear()
        batch_weights = self.config.batch_size * max(layout.size for layout in self.source.layouts)
        with threads_for(batch_weights, self.config.threads):
            self.untrained = self.source.validate(self.state) if self.source.held_out_names else {}
            seed_all(self.config.seed)  # the first import of a task's modules may have drawn random numbers
            if self._resume is None:
                return self._train({})
            self.state.load(self._resume, self.source.settings)
            return self._train(stored_metrics(self._resume))

    def _train(self, metrics: dict[str, float]) -> TrainedOptimizer:
        """Train from the epoch of the state.

        Args:
            metrics: those of the checkpoint to resume from.
        """
        self._log_configuration()
        epochs = range(self.state.epoch, self.state.epoch + (self.config.rounds or self.config.epochs))
        self.source.prepare(self.state)
        updates = sum(map(self.source.updates, epochs))
        with progress(updates, f"{self.config.optimizer_model} on {self.config.data_title}", "update") as shown:
            bar = announced(shown, updates, _MEASURED_UPDATES, self._advice())
            bar.skip(self.state.epoch_updates)
            for _ in epochs:
                metrics |= self._run_epoch(bar, metrics)  # online, an epoch validates one component of the mixture
                stops = control.stop_requested and self.state.epoch < epochs.stop
                if fires(self.state.epoch, self.config.checkpoint_every) or self.state.epoch == epochs.stop or stops:
                    trained = self._save(metrics)
                if stops:
                    self._stop()
        if not epochs:
            trained = self._save({**metrics, **self.source.validate(self.state)})
        self._describe_result(trained)
        return trained

    def _trained(self, checkpoint: Path, metrics: Mapping[str, float]) -> TrainedOptimizer:
        return TrainedOptimizer(
            optimizer=self.state.predictor,
            checkpoint=checkpoint,
            layouts=self.source.layouts,
            stride=self.source.stride,
            training_names=self.source.training_names,
            held_out_names=self.source.held_out_names,
            problem_names=self.source.problem_names,
            data=self.config.data_names,
            metrics=dict(metrics),
            untrained=self.untrained,
        )

    def _advice(self) -> str:
        return "fewer --rounds or --inner-steps" if self.config.rounds else "fewer --epochs or --pairs-per-epoch"

    def _log_configuration(self) -> None:
        config = self.config
        options = {f"optimizer.{name}": value for name, value in self.state.model.config.to_mapping().items()}
        self.tracker.params({**config.to_mapping(), **options})
        run_name = {} if config.mixture else {"metaopt.run_name": config.run_name}
        self.tracker.tags({"metaopt.phase": "optimizer", **run_name})
        if self.state.step:
            self.tracker.tags({"resumed_from_step": self.state.step})
        self.tracker.text(replace(config, overwrite=False).to_json(), "config.json")
        self.source.log_data(self.tracker)

    def _run_epoch(self, bar: Progress, earlier: Mapping[str, float]) -> dict[str, float]:
        """Train for an epoch and validate; returns the metrics.

        Args:
            earlier: the metrics so far, for the checkpoint of a training that stops.
        """
        started = time.monotonic()
        try:
            trained = self.source.train(self.state, bar)
        except StopRequested:
            self._save(earlier)
            self._stop()
        metrics = trained | self.source.validate(self.state)
        if (curriculum := self.state.curriculum) is not None:
            metrics["curriculum_stage"] = float(curriculum.number)
            curriculum.observe(self.state.step, self.source.result(curriculum, metrics))
        metrics |= {"seconds": time.monotonic() - started, "epoch": float(self.state.epoch)}
        self.tracker.metrics(metrics, self.state.step)
        self.state.end_epoch()
        self._minutes += metrics["seconds"] / 60
        if speedups := validation_speedups(metrics):
            self._speedups[self._minutes] = speedups
            self._draw_speedups()
        return metrics

    def _draw_speedups(self) -> None:
        """Draw the speed-ups since this process started or resumed the training."""
        figure = line_chart(
            "Speed-up against meta-training",
            "Adam's steps to its best loss over those with nowcasts, at equal learning rates; random seeds held out",
            "minutes of meta-training",
            "speed-up",
            [*self._speedups],
            [*self._speedups.values()],
            reference=1.0,
        )
        self.tracker.figure(figure, "learning_curve")

    def _save(self, metrics: Mapping[str, float]) -> TrainedOptimizer:
        """Write a checkpoint; its name states the last epoch, and whether the training stopped within it."""
        stopped = "_stopped" if self.state.epoch_updates else ""
        last = self.state.epoch if stopped else self.state.epoch - 1
        path = self.config.checkpoint_folder / f"{self.config.optimizer_model}_epoch_{last}{stopped}.safetensors"
        trained = self._trained(path, metrics)
        self.state.save(path, self.source.settings, {FACTS: trained.facts()}, self._about(metrics))
        self.tracker.files([*files_of(path), *files_beside(path)], f"checkpoints/epoch_{last:04d}{stopped}")
        return trained

    def _stop(self) -> NoReturn:
        log.info("meta-training stops after update %d, as requested", self.state.step)
        raise StopRequested

    def _about(self, metrics: Mapping[str, float]) -> TrainingFacts:
        """What the sidecar of a checkpoint states."""
        return TrainingFacts(
            training="optimizer",
            run_name=self.config.checkpoint_folder.name,
            run_id=self.tracker.run_id,
            step=self.state.step,
            metrics=metrics,
            origin=self._origin,
        )

    def _describe_result(self, trained: TrainedOptimizer) -> None:
        if speedups := validation_speedups(trained.metrics):
            self.tracker.metrics({SPEEDUP: geometric_mean(speedups.values())}, self.state.step)
        validation = describe_validation(trained.metrics) or "no data was held out for validation"
        validation += f"; {trained.setback}" if trained.setback else ""
        epochs = counted(self.state.epoch, "round" if self.config.rounds else "epoch")
        self.tracker.describe(result=f"{validation}; {epochs}, {counted(self.state.step, 'update')} in all.")


__all__ = ["TrainOptimizerConfig", "TrainedOptimizer", "train_optimizer"]
