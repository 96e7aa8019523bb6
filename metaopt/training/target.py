"""Phase 1: train targets and record their trajectories."""

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from ..configuration import Config, Options, Range, option
from ..errors import Diverged
from ..targets import target_config
from ..tasks import Task, get_task, task_config
from ..tasks.base import generator
from ..trajectories import Recorder, Trajectory, check_run_name, claimed
from ..trajectories.recorder import SNAPSHOT
from ..weights.files import read_facts
from .checkpoint import expect_same
from .figures import loss_figure
from .loop import judge, pick_device
from .progress import Progress, progress
from .target_run import TargetRun
from .tracker import Tracker

log = logging.getLogger(__name__)


class TrainTargetConfig(Config):
    """What to train, how, and where the trajectory goes."""

    run_name: str = option(default="target", help="Name of the trajectory folder; must be new.")
    task: str = option(default="digits", help="Task to train on.")
    data_dir: Path | None = option(default=None, help="Folder of the task's data, for tasks that read files.")
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="TargetCNN", help="Network to train.")
    target_options: Options = option(default={}, help="Parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Any optimizer of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Its keyword arguments, apart from lr.")
    lr: Range = option(
        default=Range.parse("1e-3"), help="Learning rate, or low:high to draw one for each run.", above=0.0
    )
    batch_size: int = option(default=64, help="Examples in a batch.", at_least=1)
    epochs: int = option(default=10, help="Epochs to train in total.", at_least=1)
    snapshot_every: int = option(
        default=0, help="Steps between snapshots, beside those at each epoch; 0 for none.", at_least=0
    )
    seed: int = option(default=0, help="Random seed; further runs count up from it.", at_least=0)
    runs: int = option(default=1, help="How many trajectories to record.", at_least=1)
    resume: bool = option(default=False, help="Go on with a run that was stopped.")
    overwrite: bool = option(default=False, help="Replace a run of the same name.")
    checkpoint_every: int = option(
        default=1, help="Epochs between checkpoints, from which a stopped run goes on.", at_least=1
    )
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of all trajectories.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    device: str = option(default="cpu", help="Where to train.", choices=("cpu", "cuda", "auto"))


def train_targets(config: TrainTargetConfig, tracker: Tracker) -> list[Path]:
    """Train `config.runs` targets with consecutive random seeds, each into a trajectory of its own.

    One target uses the tracker itself, several each a child of it.

    Returns: the folders of the trajectories, in the order of their random seeds.
    Raises:
        UnknownName, InvalidConfig: a name or a value that cannot be; nothing was written.
        TaskDataError: the task's data is missing or unreadable; nothing was written.
        RunNameError: the run name is unfit, taken, in use, or names nothing to resume.
        CheckpointError: the run to resume was started with other settings.
        Diverged: a loss or a weight is not finite; the snapshots before it are kept.
        StorageError: the disk is full; everything written before is kept.
    """
    task = get_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    plans = [replace(config, seed=config.seed + index, runs=1) for index in range(config.runs)]
    _build(plans[0], task)  # what cannot be built must not overwrite anything
    folder = config.trajectory_dir / check_run_name(config.run_name)
    with claimed(folder, "seed_*", resume=config.resume, overwrite=config.overwrite):
        if len(plans) == 1:
            return [_Recording(plans[0], task, tracker).finish()]
        tracker.params(config.to_mapping())
        tracker.text(config.to_json(), "config.json")
        return [_record_below(plan, task, tracker) for plan in plans]


def _record_below(plan: TrainTargetConfig, task: Task, tracker: Tracker) -> Path:
    with tracker.child(f"{plan.run_name} seed {plan.seed}") as child:
        return _Recording(plan, task, child).finish()


def _build(plan: TrainTargetConfig, task: Task) -> TargetRun:
    facts = {
        "task": plan.task,
        "task_config": task_config(plan.task, plan.task_options, plan.data_dir),
        "target_model": plan.target_model,
        "target_config": target_config(plan.target_model, task.model_facts, plan.target_options),
        "base_optimizer": plan.base_optimizer,
        "base_optimizer_options": dict(plan.base_optimizer_options),
        "lr": plan.lr.at(float(torch.rand((), dtype=torch.float64, generator=generator(plan.seed)))),
        "batch_size": plan.batch_size,
        "seed": plan.seed,
    }
    return TargetRun(facts, task, pick_device(plan.device))


class _Recording:
    """One target from its first snapshot, or its last checkpoint, to its last epoch."""

    def __init__(self, plan: TrainTargetConfig, task: Task, tracker: Tracker) -> None:
        place = Path(plan.run_name, f"seed_{plan.seed}")
        self.plan = plan
        self.tracker = tracker
        self.run = _build(plan, task)
        self.folder = plan.trajectory_dir / place
        self.checkpoint = plan.checkpoint_dir / place / "checkpoint.safetensors"
        self.recorder = Recorder(self.folder, self.run.facts, self.run.layout)
        self.data = task.digest()
        self.settings = {"snapshot_every": plan.snapshot_every, "data": self.data}

    def finish(self) -> Path:
        """Train up to the last epoch; the trajectory's folder."""
        self._find_start()
        if self.run.epoch >= self.plan.epochs:
            log.info(
                "%s is complete: it has %d epochs of the %d asked for", self.folder, self.run.epoch, self.plan.epochs
            )
            return self.folder
        self._describe()
        try:
            self._train()
        except Diverged as error:
            raise Diverged(
                f"{self.run.title}: {error}, after {self.run.step} steps with lr {self.run.facts['lr']:g}. The "
                f"snapshots before that are kept in {self.folder}. Try a lower lr, or another base optimizer"
            ) from error
        self._hand_over()
        return self.folder

    def _find_start(self) -> None:
        first = self.folder / "step_00000000.safetensors"
        if not (self.plan.resume and first.exists()):
            self.checkpoint.unlink(missing_ok=True)  # left by an older run of this name
        elif self.checkpoint.exists():
            self.run.load(self.checkpoint, self.settings)
            log.info("%s goes on after epoch %d", self.run.title, self.run.epoch)
        else:
            expect_same(read_facts(first, SNAPSHOT), {"run": self.run.facts}, first)
            log.info("%s has no checkpoint yet and starts from its first step", self.run.title)

    def _describe(self) -> None:
        facts = self.run.facts
        self.tracker.params(
            {**self.plan.to_mapping(), "lr_drawn": facts["lr"], "trainable_weights": self.run.layout.size}
        )
        self.tracker.tags(
            {"metaopt.phase": "target", "metaopt.run_name": self.plan.run_name, "metaopt.seed": self.plan.seed}
        )
        self.tracker.text(replace(self.plan, resume=False, overwrite=False).to_json(), "config.json")
        source = str(facts["task_config"].get("data_dir", "part of the installed packages"))
        for split in ("train", "validation"):
            self.tracker.dataset(self.plan.task, source, self.data, split)

    def _train(self) -> None:
        batches = math.ceil(len(self.run.task.splits["train"]) / self.plan.batch_size)
        if self.run.step == 0:
            self._note({}, self._judge())
        with progress(self.plan.epochs * batches, self.run.title, done=self.run.step) as bar:
            while self.run.epoch < self.plan.epochs:
                started = time.monotonic()
                train_loss = self._train_epoch(bar)
                self._note({"train_loss": train_loss}, self._judge(), seconds=time.monotonic() - started)
                if self.run.epoch % self.plan.checkpoint_every == 0 or self.run.epoch == self.plan.epochs:
                    self.run.save(self.checkpoint, self.settings)

    def _train_epoch(self, bar: Progress) -> float:
        """Train for an epoch, with snapshots on the way; the mean loss of its batches."""
        losses: list[float] = []
        for loss in self.run.train_epoch():
            losses.append(loss)
            bar.update(loss=loss)
            if self.plan.snapshot_every and self.run.step % self.plan.snapshot_every == 0:
                self._record({"train_loss": fmean(losses)})
        return fmean(losses)

    def _judge(self) -> dict[str, float]:
        judged = judge(self.run.model, self.run.task, "validation", self.run.device)
        if not math.isfinite(judged["loss"]):
            raise Diverged(f"the validation loss is {judged['loss']}")
        return {f"val_{name}": value for name, value in judged.items()}

    def _note(self, trained: dict[str, float], judged: dict[str, float], **further: float) -> None:
        """Record a snapshot and metrics at an epoch's end."""
        self._record({**trained, "val_loss": judged["val_loss"]})
        self.tracker.metrics({**trained, **judged, **further, "epoch": self.run.epoch}, self.run.step)

    def _record(self, losses: dict[str, float]) -> None:
        self.recorder.record(self.run.model, self.run.step, self.run.epoch, losses)

    def _hand_over(self) -> None:
        trajectory = Trajectory.open(self.folder)
        losses = [trajectory.losses(index) for index in range(len(trajectory))]
        self.tracker.figure(loss_figure(trajectory.steps, losses, self.run.title), "losses")
        self.tracker.files(sorted(self.folder.glob("*.safetensors")), "trajectory")
