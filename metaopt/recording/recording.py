"""One target from its first snapshot, or its last checkpoint, to its last epoch; alone or beside others."""

import json
import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

import torch

from ..core.errors import Diverged, MetaoptError
from ..core.progress import Progress, sub_progress
from ..core.rng import generator
from ..core.tracker import Parent, Tracker
from ..optimizers import evaluation_mode
from ..targets import target_config
from ..tasks import Task, task_config
from ..tasks.measure import measure
from ..trajectories import TASK_FILE, Recorder, Trajectory
from ..trajectories.checkpoint import expect_same
from ..trajectories.recorder import SNAPSHOT
from ..weights.files import read_facts, write_text
from .charts import loss_figure
from .config import TrainTargetConfig
from .state import Step, TargetTrainingState
from .text import count, recorded
from .training import pick_device

log = logging.getLogger(__name__)

Recording = Generator[Step, float, Path]
"""A target in training: it gives each step that it wants to take, is told the loss, and returns its folder."""

Outcome = Path | Exception
"""The folder of a trajectory, or why there is none."""


def record(
    plans: Sequence[TrainTargetConfig],
    task: Task,
    parent: Parent,
    take: Callable[[Sequence[Step]], list[float]],
    bar: Progress,
) -> list[Outcome]:
    """Record some targets side by side; one that fails is left behind, and the others go on.

    Args:
        plans: one run each.
        parent: gives each its tracker.
        take: takes the next steps of several targets, giving their losses.
        bar: is told of `steps_of` each plan.
    Returns: what became of each.
    """
    recordings = [_recording(plan, task, parent, bar) for plan in plans]
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, Step] = {}

    def go_on(index: int, advance: Callable[[Any], Step], told: Any) -> None:
        try:
            waiting[index] = advance(told)
            return
        except StopIteration as finished:
            outcomes[index] = finished.value
        except Exception as error:
            if not isinstance(error, MetaoptError):
                log.exception("random seed %d failed", plans[index].seed)
            outcomes[index] = error
        waiting.pop(index, None)

    try:
        for index, recording in enumerate(recordings):
            go_on(index, recording.send, None)
        while waiting:
            behind = min(step.run.step for step in waiting.values())  # resumed runs may be at different steps
            chosen = {index: step for index, step in waiting.items() if step.run.step == behind}
            try:
                losses = take(list(chosen.values()))
            except Exception as error:
                for index in chosen:
                    go_on(index, recordings[index].throw, error)
                continue
            for index, loss in zip(chosen, losses, strict=True):
                go_on(index, recordings[index].send, loss)
    except BaseException as error:  # such as Ctrl-C: each records its end
        for index in waiting:
            with suppress(BaseException):
                recordings[index].throw(error)
        raise
    return [outcomes[index] for index in range(len(plans))]


def steps_of(plan: TrainTargetConfig, task: Task) -> int:
    """How long the training of a plan for a single run is [steps]."""
    return plan.epochs * math.ceil(len(task.splits["train"]) / plan.batch_size)


def build(plan: TrainTargetConfig, task: Task) -> TargetTrainingState:
    """The training that a plan for a single run describes, at its start.

    Raises:
        UnknownName, InvalidConfig: it names or configures something that cannot be.
    """
    facts = {
        "task": plan.task,
        "task_config": task_config(plan.task, plan.task_options, plan.data_dir),
        "target_model": plan.target_model,
        "target_config": target_config(plan.target_model, task.model_facts, plan.target_options),
        "space": plan.space,
        "base_optimizer": plan.base_optimizer,
        "base_optimizer_options": dict(plan.base_optimizer_options),
        "lr": plan.lr.at(float(torch.rand((), dtype=torch.float64, generator=generator(plan.seed)))),
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "averaging": plan.averaging,
    }
    return TargetTrainingState(facts, task, pick_device(plan.device))


def _recording(plan: TrainTargetConfig, task: Task, parent: Parent, bar: Progress) -> Recording:
    with sub_progress(bar, steps_of(plan, task)) as share, parent.child(f"{plan.run_name} seed {plan.seed}") as tracker:
        folder = yield from _Recording(plan, task, tracker).go(share)
    return folder


class _Recording:
    def __init__(self, plan: TrainTargetConfig, task: Task, tracker: Tracker) -> None:
        self.plan = plan
        self.tracker = tracker
        self.run = build(plan, task)
        self.folder = plan.trajectory_dir / plan.place
        self.checkpoint = plan.checkpoint_dir / plan.place / "checkpoint.safetensors"
        self.data = task.digest()
        self.judged: dict[str, float] = {}
        self.settings = {
            "snapshot_every": plan.snapshot_every,
            "snapshot_dtype": plan.snapshot_dtype,
            "keep_last": plan.keep_last,
            "data": self.data,
        }

    def go(self, bar: Progress) -> Recording:
        """Train up to the last epoch; the trajectory's folder."""
        self._find_start()
        if self.run.epoch >= self.plan.epochs:
            log.info(
                "%s is complete: it has %d epochs of the %d asked for", self.folder, self.run.epoch, self.plan.epochs
            )
            return self.folder
        self._describe()
        try:
            yield from self._train(bar)
        except Diverged as error:
            self._hand_over()
            raise Diverged(
                f"{self.run.title}: {error}, after {self.run.step} steps with lr {self.run.facts['lr']:g}. The "
                f"snapshots before that are kept in {self.folder}. Try a lower lr, or another base optimizer"
            ) from error
        self._hand_over()
        return self.folder

    def _find_start(self) -> None:
        snapshots = sorted(self.folder.glob("step_*.safetensors"))
        if not (self.plan.resume and snapshots):
            self.checkpoint.unlink(missing_ok=True)  # left by an older run of this name
        elif self.checkpoint.exists():
            self.run.load(self.checkpoint, self.settings)
            log.info("%s goes on after epoch %d", self.run.title, self.run.epoch)
        else:
            expect_same(read_facts(snapshots[0], SNAPSHOT), {"run": self.run.facts}, snapshots[0])
            log.info("%s has no checkpoint yet and starts from its first step", self.run.title)

    def _describe(self) -> None:
        facts = self.run.facts
        self.tracker.note(
            does=f"Phase 1: trains {self.plan.title} with {self.plan.base_optimizer} at lr {facts['lr']:.3g} for "
            f"{count(self.plan.epochs, 'epoch')}, random seed {self.plan.seed}, and records its weights on the way."
        )
        self.tracker.params(
            {**self.plan.to_mapping(), "lr_drawn": facts["lr"], "trainable_weights": self.run.layout.size}
        )
        self.tracker.tags(
            {"metaopt.phase": "target", "metaopt.run_name": self.plan.run_name, "metaopt.seed": self.plan.seed}
        )
        self.tracker.text(replace(self.plan, resume=False, overwrite=False).to_json(), "config.json")
        source = str(facts["task_config"].get("data_dir", "part of the installed packages"))
        # One digest covers all splits, and a tracker that knows it already would drop what else is said of it.
        self.tracker.dataset(self.plan.task, source, self.data, ", ".join(self.run.task.splits))

    def _train(self, bar: Progress) -> Generator[Step, float, None]:
        plan, run = self.plan, self.run
        recorder = Recorder(self.folder, run.facts, run.layout, dtype=plan.snapshot_dtype, keep_last=plan.keep_last)
        bar.skip(run.step)
        with recorder:
            if run.step == 0:
                self._note(recorder, {}, self._judge())
            while run.epoch < plan.epochs:
                started = monotonic()
                train_loss = yield from self._train_epoch(recorder, bar)
                self._note(recorder, {"train_loss": train_loss}, self._judge(), seconds=monotonic() - started)
                if run.epoch % plan.checkpoint_every == 0 or run.epoch == plan.epochs:
                    recorder.flush()  # what comes after a checkpoint may be lost, not what came before
                    run.save(self.checkpoint, self.settings)
        write_text(self.folder / TASK_FILE, self._task_facts())

    def _train_epoch(self, recorder: Recorder, bar: Progress) -> Generator[Step, float, float]:
        """Train for an epoch, with snapshots on the way; the mean loss of its batches."""
        losses: list[float] = []
        for step in self.run.epoch_steps():
            loss = yield step
            self.run.take_in(loss)
            losses.append(loss)
            bar.update(loss=loss)
            if self.plan.snapshot_every and self.run.step % self.plan.snapshot_every == 0:
                self._record(recorder, {"train_loss": fmean(losses)})
        return fmean(losses)

    def _judge(self) -> dict[str, float]:
        run = self.run
        validation = run.task.splits["validation"].in_order(run.task.rows_at_once)
        with evaluation_mode(run.optimizer):
            judged = measure(run.model, run.task, validation)
        if not math.isfinite(judged["loss"]):
            raise Diverged(f"the validation loss is {judged['loss']}")
        self.judged = {f"val_{name}": value for name, value in judged.items()}
        return self.judged

    def _note(
        self, recorder: Recorder, trained: Mapping[str, float], judged: Mapping[str, float], **further: float
    ) -> None:
        """Record a snapshot and metrics at an epoch's end."""
        self._record(recorder, {**trained, "val_loss": judged["val_loss"]})
        self.tracker.metrics({**trained, **judged, **further, "epoch": self.run.epoch}, self.run.step)

    def _record(self, recorder: Recorder, losses: Mapping[str, float]) -> None:
        with evaluation_mode(self.run.optimizer):
            recorder.record(self.run.model, self.run.step, self.run.epoch, losses, self.run.averaged())

    def _task_facts(self) -> str:
        facts = replace(self.run.task.describe(), loss_change_std=self.run.loss_changes.deviation)
        return json.dumps(facts.to_mapping(), indent=2) + "\n"

    def _hand_over(self) -> None:
        """Give what was recorded to the tracker."""
        if not any(self.folder.glob("step_*.safetensors")):  # it diverged before its first snapshot
            return
        trajectory = Trajectory.open(self.folder)
        losses = [trajectory.losses(index) for index in range(len(trajectory))]
        self.tracker.figure(loss_figure(trajectory.steps, losses, self.run.title), "losses")
        self.tracker.note(result=recorded(trajectory, self.judged))
        self.tracker.files(trajectory.files(), "trajectory")
