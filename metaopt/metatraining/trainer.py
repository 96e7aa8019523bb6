"""What a meta-training stands on: recorded trajectories, or trainings that run while it learns."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..core.progress import Progress, progress
from ..core.rng import seed_all
from ..core.tracker import Tracker
from ..generative import GENERATIVE_OPTIMIZERS, GenerativeOptimizer
from ..generative.base import SnapshotConfig
from ..generative.files import load_optimizer
from ..recording.charts import learning_curve
from ..recording.text import count, learned, speedups_of
from ..trajectories import claim_run_folder
from ..weights.files import files_of
from ..weights.layout import Layout
from .config import TrainOptimizerConfig
from .offline import OfflineSource, recorded_averaging
from .online import OnlineSource
from .state import MetaTrainingState


class MetaTrainingSource(Protocol):
    """Gives a meta-training its updates and its judgement, an epoch at a time.

    What an epoch does depends on its number and the configuration alone, so that a resumed meta-training equals one
    that was never stopped.
    """

    learned: list[str]
    """Names of what is learned from."""
    held_out: list[str]
    """Names of what only judges."""
    subjects: list[str]
    """What is trained there, each once ("MLP on digits")."""
    layouts: list[Layout]
    """The networks that it trains on."""
    stride: float
    """Steps between the snapshots of a history [steps]."""
    settings: dict[str, Any]
    """What must not change when a meta-training goes on."""

    def describe(self, tracker: Tracker) -> None:
        """Tell where the data comes from."""

    def updates(self, epoch: int) -> int:
        """About how many updates an epoch has [count]."""

    def prepare(self, run: MetaTrainingState) -> None:
        """Do what takes time before the first update, and show its progress."""

    def train(self, run: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Train for the epoch that the run is in; figures of it."""

    def judge(self, run: MetaTrainingState) -> dict[str, float]:
        """Figures of the averaged weights on what was held out."""


_AVERAGING = 0.98  # in live rounds; an average over the last 50 steps


@dataclass(frozen=True)
class TrainedOptimizer:
    """What a meta-training gives: the optimizer, its last checkpoint, and what it knows.

    Attributes:
        subjects: what was trained where it learned ("MLP on digits").
        stride: steps between the snapshots of a history [steps].
        learned, held_out: names of what it learned from, and of what only judged.
        figures: the last of each metric.
    """

    optimizer: GenerativeOptimizer
    checkpoint: Path
    layouts: list[Layout]
    stride: float
    learned: list[str]
    held_out: list[str]
    subjects: list[str]
    figures: dict[str, float]


def train_optimizer(config: TrainOptimizerConfig, tracker: Tracker, resume: Path | None = None) -> TrainedOptimizer:
    """Train a generative optimizer on recorded trajectories, or in live rounds on a mixture.

    Args:
        resume: a checkpoint to go on from; `config.epochs` further epochs, or `config.rounds` rounds, follow its own.
    Raises:
        UnknownName, InvalidConfig: a name or a value that cannot be; nothing was written.
        TrackingError, FileFormatError: the optimizer to start from cannot be loaded.
        TrajectoryError: no trajectory of that name, one with a single snapshot, or too few to hold any out.
        TaskDataError: a task of the mixture lacks its data.
        RunNameError: checkpoints of that name exist, or another process writes them.
        CheckpointError: the checkpoint belongs to another training.
        Diverged: no finite gradient any more; the last checkpoint is kept.
    """
    tracker.note(does=config.summary)
    origin = load_optimizer(config.start_from) if config.start_from else None
    run = MetaTrainingState(
        config.optimizer_model,
        _options(config) if origin is None else origin.config.to_mapping(),
        seed=config.seed,
        lr=config.lr,
        weight_decay=config.weight_decay,
        average=config.average,
    )
    if origin is not None:
        run.start_from(origin)
    kind = OnlineSource if config.rounds else OfflineSource
    ground: MetaTrainingSource = kind(config, run.model.history, run.model.averaging)
    seed_all(config.seed)  # what a task imports may have drawn random numbers, if nothing had imported it before
    if resume is not None:
        run.load(resume, ground.settings)
    owned = f"{config.optimizer_model}_epoch_*"
    keep = resume is not None and any(config.checkpoint_folder.glob(owned))
    with claim_run_folder(config.checkpoint_folder, owned, resume=keep, overwrite=config.overwrite and not keep):
        return _MetaTraining(config, run, ground, tracker).finish()


def _options(config: TrainOptimizerConfig) -> dict[str, Any]:
    """The optimizer's options; unless they say otherwise, it is shown what its trainings have: averages or weights."""
    if not issubclass(GENERATIVE_OPTIMIZERS.get(config.optimizer_model).Config, SnapshotConfig):
        return dict(config.optimizer_options)
    averaging = _AVERAGING if config.rounds else recorded_averaging(config)
    return {"averaging": averaging, **config.optimizer_options}


class _MetaTraining:
    """A meta-training from its first or its next epoch to its last."""

    def __init__(
        self, config: TrainOptimizerConfig, run: MetaTrainingState, ground: MetaTrainingSource, tracker: Tracker
    ) -> None:
        self.config = config
        self.run = run
        self.ground = ground
        self.tracker = tracker
        self._minutes = 0.0
        self._races: dict[float, dict[str, float]] = {}

    def finish(self) -> TrainedOptimizer:
        """Train for the epochs asked for; each is judged, every few are kept."""
        self._describe()
        epochs = range(self.run.epoch, self.run.epoch + (self.config.rounds or self.config.epochs))
        self.ground.prepare(self.run)
        updates = sum(map(self.ground.updates, epochs))
        with progress(updates, f"{self.config.optimizer_model} on {self.config.grounds}", "update") as bar:
            figures: dict[str, float] = {}
            for _ in epochs:
                figures |= self._train_and_judge(bar)  # a ground may judge other things in other epochs
                if self.run.epoch % self.config.checkpoint_every == 0 or self.run.epoch == epochs.stop:
                    checkpoint = self._save()
        done = f"{count(self.run.epoch, 'round' if self.config.rounds else 'epoch')}, {count(self.run.step, 'update')}"
        judged = learned(figures)
        self.tracker.note(result=f"{judged or 'nothing was held out to judge on'}; {done} in all.")
        return TrainedOptimizer(
            optimizer=self.run.predictor.eval(),
            checkpoint=checkpoint,
            layouts=self.ground.layouts,
            stride=self.ground.stride,
            learned=self.ground.learned,
            held_out=self.ground.held_out,
            subjects=self.ground.subjects,
            figures=figures,
        )

    def _describe(self) -> None:
        config = self.config
        of_model = {f"optimizer.{name}": value for name, value in self.run.model.config.to_mapping().items()}
        self.tracker.params({**config.to_mapping(), **of_model})
        origin = {} if config.rounds else {"metaopt.run_name": config.run_name}
        self.tracker.tags({"metaopt.phase": "optimizer", **origin})
        if self.run.step:
            self.tracker.tags({"resumed_from_step": self.run.step})
        self.tracker.text(replace(config, overwrite=False).to_json(), "config.json")
        self.ground.describe(self.tracker)

    def _train_and_judge(self, bar: Progress) -> dict[str, float]:
        started = time.monotonic()
        figures = self.ground.train(self.run, bar) | self.ground.judge(self.run)
        figures |= {"seconds": time.monotonic() - started, "epoch": float(self.run.epoch)}
        self.tracker.metrics(figures, self.run.step)
        self.run.epoch += 1
        self._minutes += figures["seconds"] / 60
        self._draw(speedups_of(figures))
        return figures

    def _draw(self, speedups: dict[str, float]) -> None:
        """Draw the learning curve anew where there is a new race; a resumed training begins another one."""
        if speedups:
            self._races[self._minutes] = speedups
            self.tracker.figure(learning_curve([*self._races], [*self._races.values()]), "learning_curve")

    def _save(self) -> Path:
        last = self.run.epoch - 1
        path = self.config.checkpoint_folder / f"{self.config.optimizer_model}_epoch_{last}.safetensors"
        self.run.save(path, self.ground.settings)
        self.tracker.files(files_of(path), f"checkpoints/epoch_{last:04d}")
        return path


__all__ = ["TrainOptimizerConfig", "TrainedOptimizer", "train_optimizer"]
