"""Phase 2: train a generative optimizer on recorded trajectories."""

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from ..configuration import Config, Options, option
from ..optimizers import GenerativeOptimizer
from ..tasks.base import generator
from ..trajectories import (
    Trajectory,
    WeightTrajectoryDataset,
    check_run_name,
    claimed,
    find_trajectories,
    split_by_run,
)
from ..trajectories.dataset import MODES
from ..weights.files import files_of
from ..weights.layout import Layout
from .batching import PairBatch, pair_batches
from .meta_run import MetaRun
from .objectives import OBJECTIVES, Judged, judge_predictions
from .problem import InnerProblem, problem_key
from .progress import Progress, progress
from .randomness import seed_all
from .tracker import Tracker

_JUDGED_PAIRS = 96  # enough that validation figures are smooth, few enough that they cost little
_JUDGED_EXAMPLES = 512


class TrainOptimizerConfig(Config):
    """What to learn from, how, and where the checkpoints go."""

    run_name: str = option(
        default="target", help="Trajectories to learn from: the run name of phase 1, or several, by commas."
    )
    checkpoint_name: str | None = option(default=None, help="Folder of the checkpoints; the run name where not given.")
    optimizer_model: str = option(default="PerceiverOptimizer", help="Generative optimizer to train.")
    optimizer_options: Options = option(default={}, help="Its parameters.")
    training_mode: str = option(
        default="permutation", help="Which pairs of snapshots: next ones, or all.", choices=MODES
    )
    objective: str = option(default="mix", help="What to train for.", choices=tuple(OBJECTIVES))
    epochs: int = option(default=20, help="Epochs to train; when resuming, further epochs.", at_least=1)
    batch_size: int = option(default=8, help="Pairs in a batch [count].", at_least=1)
    pairs_per_epoch: int = option(default=0, help="Pairs drawn for an epoch [count]; 0 for all.", at_least=0)
    task_batch: int = option(
        default=128, help="Examples on which a predicted network's loss is measured [count].", at_least=1
    )
    lr: float = option(default=1e-3, help="Learning rate of AdamW.", above=0.0)
    weight_decay: float = option(default=0.01, help="Weight decay of AdamW.", at_least=0.0)
    average: float = option(default=0.99, help="Decay of the running average of the weights.", at_least=0.0, below=1.0)
    held_out: int | None = option(
        default=None, help="Trajectories held out to judge on [count]; a quarter where not given.", at_least=0
    )
    seed: int = option(default=0, help="Random seed.", at_least=0)
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, if it is not where it was in phase 1."
    )
    trust_code: bool = option(
        default=False, help="Import networks that trajectories name by a dotted path; for your own ones only."
    )
    resume_from: str | None = option(default=None, help="Checkpoint to go on from: a run ID, a runs:/ URI or a file.")
    overwrite: bool = option(default=False, help="Replace checkpoints of the same name.")
    checkpoint_every: int = option(
        default=5, help="Epochs between checkpoints; the last epoch always has one.", at_least=1
    )
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of all trajectories.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    model_name: str | None = option(
        default="metaopt-perceiver", help="Name in the model registry; none to register nothing."
    )

    def __post_init__(self) -> None:
        """Check each value, and that every run name is one.

        Raises:
            InvalidConfig, RunNameError: names the value and the rule.
        """
        super().__post_init__()
        for name in self.run_names:
            check_run_name(name)

    @property
    def run_names(self) -> list[str]:
        """The run names of phase 1, one by one, each once."""
        return list(dict.fromkeys(name.strip() for name in self.run_name.split(",")))

    @property
    def checkpoint_folder(self) -> Path:
        """Where this training's checkpoints lie."""
        return self.checkpoint_dir / (self.checkpoint_name or "+".join(self.run_names))

    def settings(self) -> dict[str, Any]:
        """What must not change when a training goes on."""
        names = ("training_mode", "objective", "batch_size", "pairs_per_epoch", "task_batch", "lr", "weight_decay",
                 "average", "seed")  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class TrainedOptimizer:
    """What a meta-training gives: the optimizer, its last checkpoint, and what it knows."""

    optimizer: GenerativeOptimizer
    checkpoint: Path
    layouts: list[Layout]
    stride: float
    learned: list[str]
    held_out: list[str]
    figures: dict[str, float]


def train_optimizer(config: TrainOptimizerConfig, tracker: Tracker, resume: Path | None = None) -> TrainedOptimizer:
    """Train a generative optimizer on the trajectories of a run name.

    Args:
        resume: a checkpoint to go on from; `config.epochs` further epochs follow its own.
    Raises:
        UnknownName, InvalidConfig: a name or a value that cannot be; nothing was written.
        TrajectoryError: no trajectory of that name, one with a single snapshot, or too few to hold any out.
        RunNameError: checkpoints of that name exist, or another process writes them.
        CheckpointError: the checkpoint belongs to another training.
        Diverged: no finite gradient any more; the last checkpoint is kept.
    """
    run = MetaRun(
        config.optimizer_model,
        config.optimizer_options,
        seed=config.seed,
        lr=config.lr,
        weight_decay=config.weight_decay,
        average=config.average,
    )
    trajectories = [found for name in config.run_names for found in find_trajectories(config.trajectory_dir / name)]
    training = _MetaTraining(config, run, trajectories, tracker)
    seed_all(config.seed)  # what a task imports may have drawn random numbers, if nothing had imported it before
    if resume is not None:
        run.load(resume, training.settings)
    owned = f"{config.optimizer_model}_epoch_*"
    keep = resume is not None and any(config.checkpoint_folder.glob(owned))
    with claimed(config.checkpoint_folder, owned, resume=keep, overwrite=config.overwrite and not keep):
        return training.finish()


class _MetaTraining:
    """A meta-training with its data, from its first or its next epoch to its last."""

    def __init__(
        self, config: TrainOptimizerConfig, run: MetaRun, trajectories: list[Trajectory], tracker: Tracker
    ) -> None:
        held_out = len(trajectories) // 4 if config.held_out is None else config.held_out
        self.learned, self.held_out = split_by_run(trajectories, held_out, config.seed)
        self.config = config
        self.run = run
        self.tracker = tracker
        self.shares = OBJECTIVES[config.objective]
        self.pairs = self._dataset(self.learned)
        self.judged_pairs = self._dataset(self.held_out)
        self.settings = {**config.settings(), "trajectories": [trajectory.digest for trajectory in self.learned]}
        self.problems: dict[str, InnerProblem] = {}
        for trajectory in trajectories if self.shares.task else []:
            if (key := problem_key(trajectory)) not in self.problems:
                self.problems[key] = InnerProblem.of(trajectory, config.data_dir, trust_code=config.trust_code)

    def finish(self) -> TrainedOptimizer:
        """Train for the epochs asked for; each is judged, every few are kept."""
        self._describe()
        last_epoch = self.run.epoch + self.config.epochs
        updates = len(list(pair_batches(self.pairs, self._order(), self.config.batch_size))) * self.config.epochs
        with progress(updates, f"{self.config.optimizer_model} on {self.config.run_name}") as bar:
            while self.run.epoch < last_epoch:
                figures = self._train_and_judge(bar)
                if self.run.epoch % self.config.checkpoint_every == 0 or self.run.epoch == last_epoch:
                    checkpoint = self._save()
        return self._result(checkpoint, figures)

    def _dataset(self, trajectories: list[Trajectory]) -> WeightTrajectoryDataset:
        return WeightTrajectoryDataset(trajectories, self.config.training_mode, self.run.model.history)  # type: ignore[arg-type]

    def _describe(self) -> None:
        config = self.config
        of_model = {f"optimizer.{name}": value for name, value in self.run.model.config.to_mapping().items()}
        self.tracker.params({**config.to_mapping(), **of_model})
        self.tracker.tags({"metaopt.phase": "optimizer", "metaopt.run_name": config.run_name})
        if self.run.step:
            self.tracker.tags({"resumed_from_step": self.run.step})
        self.tracker.text(replace(config, overwrite=False).to_json(), "config.json")
        for context, trajectories in (("train", self.learned), ("held-out", self.held_out)):
            for trajectory in trajectories:
                self.tracker.dataset(trajectory.name, str(trajectory.folder), trajectory.digest, context)

    def _order(self) -> list[int]:
        """The pairs of the next epoch, in an order that depends on the random seed and the epoch alone."""
        order = torch.randperm(len(self.pairs), generator=generator(self.config.seed, self.run.epoch)).tolist()
        return order[: self.config.pairs_per_epoch or None]

    def _train_and_judge(self, bar: Progress) -> dict[str, float]:
        started = time.monotonic()
        figures = self._train_epoch(bar) | self._judge()
        figures |= {"seconds": time.monotonic() - started, "epoch": float(self.run.epoch)}
        self.tracker.metrics(figures, self.run.step)
        self.run.epoch += 1
        return figures

    def _train_epoch(self, bar: Progress) -> dict[str, float]:
        means = _Means()
        for number, batch in enumerate(pair_batches(self.pairs, self._order(), self.config.batch_size)):
            bar.update(loss=self._update(batch, generator(self.config.seed, self.run.epoch, number), means))
        return means.named("train")

    def _update(self, batch: PairBatch, random: torch.Generator, means: "_Means") -> float:
        """One update; in a function of its own, so that its large tensors are gone before the next batch is read."""
        judged = self._predict(self.run.model, self.pairs, batch, self.config.task_batch, random)
        objective = judged.objective.mean()
        self.run.update(objective)
        means.add(judged)
        return objective.item()

    @torch.no_grad()
    def _judge(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out trajectories: always the same pairs and examples."""
        means = _Means()
        few = min(_JUDGED_PAIRS, len(self.judged_pairs))
        order = torch.linspace(0, len(self.judged_pairs) - 1, few).long().tolist()
        for batch in pair_batches(self.judged_pairs, order, self.config.batch_size):
            random = generator(self.config.seed)
            means.add(self._predict(self.run.predictor, self.judged_pairs, batch, _JUDGED_EXAMPLES, random))
        return means.named("val")

    def _predict(
        self,
        model: GenerativeOptimizer,
        dataset: WeightTrajectoryDataset,
        batch: PairBatch,
        examples: int,
        random: torch.Generator,
    ) -> Judged:
        pairs = dataset.batch(batch.indices)
        layout = dataset.trajectories[dataset.pairs[batch.indices[0]].trajectory].layout
        predicted = model.generate(pairs.history, pairs.t_history, pairs.t_end, layout)
        problem = self.problems.get(batch.problem)
        shown = problem.task.sample("meta", examples, random) if problem else None
        return judge_predictions(predicted, pairs, layout, self.shares, problem, shown)

    def _save(self) -> Path:
        last = self.run.epoch - 1
        path = self.config.checkpoint_folder / f"{self.config.optimizer_model}_epoch_{last}.safetensors"
        self.run.save(path, self.settings)
        self.tracker.files(files_of(path), f"checkpoints/epoch_{last:04d}")
        return path

    def _result(self, checkpoint: Path, figures: dict[str, float]) -> TrainedOptimizer:
        trajectories = [*self.learned, *self.held_out]
        strides = [after - before for each in trajectories for before, after in pairwise(each.steps)]
        return TrainedOptimizer(
            optimizer=self.run.predictor.eval(),
            checkpoint=checkpoint,
            layouts=list(dict.fromkeys(each.layout for each in trajectories)),
            stride=float(median(strides)),
            learned=[each.name for each in self.learned],
            held_out=[each.name for each in self.held_out],
            figures=figures,
        )


class _Means:
    """Gathers what was judged, for the means of an epoch."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, judged: Judged) -> None:
        self._values["loss"] += judged.objective.tolist()
        self._values["relative_error"] += judged.relative_error.tolist()
        if judged.log_loss_change is not None:
            self._values["log_loss_change"] += judged.log_loss_change.tolist()

    def named(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}_{name}": fmean(values) for name, values in self._values.items()}
