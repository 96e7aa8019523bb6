"""Phase 3: trains a controller and writes its checkpoints."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.clock import fires
from ..core.control import StopRequested, control
from ..core.devices import device_name, find_device, threads_for
from ..core.progress import Progress, progress
from ..core.text import counted
from ..core.tracker import Tracker
from ..figures import line_chart
from ..growth.policy import Policy, save_policy
from ..tasks import TASKS
from ..trajectories import claim_run_folder
from ..trajectories.ledger_entry import TrainingFacts, files_beside
from ..trajectories.origin import Generator, Origin, data_set
from ..trajectories.parents import file_parents, made_from
from ..trajectories.run_folder import ClaimedFolder
from ..weights.files import files_of
from .config import FACTS, TrainControllerConfig
from .problem import Problem
from .state import ControllerTrainingState
from .twins import Twins

_OWNED = "controller_*"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedController:
    """The result of phase 3.

    Attributes:
        policy: the controller.
        file: its file, for `metaopt train-target --controller`.
        checkpoint: the last checkpoint.
        metrics: the last value of each metric.
        curve: mean return, and mean loss over that of runs without growth, of each rollout.
    """

    policy: Policy
    file: Path
    checkpoint: Path
    metrics: dict[str, float]
    curve: list[list[float]]


def train_controller(config: TrainControllerConfig, tracker: Tracker, resume: Path | None = None) -> TrainedController:
    """Train a controller by reinforcement learning.

        from metaopt.core.tracker import SilentTracker
        from metaopt.reinforcement.config import TrainControllerConfig
        from metaopt.reinforcement.training import train_controller

        config = TrainControllerConfig(task="digits", steps=60, episodes=2, n_envs=2, train_seeds=2)
        trained = train_controller(config, SilentTracker())
        trained.file  # checkpoints/controller/controller_policy.safetensors

    Args:
        resume: checkpoint to resume from; the training goes on up to `config.episodes` episodes in all.
    Raises:
        UnknownName, InvalidConfig: an unknown name, an invalid value, or a package of the extra `growth` is missing.
        TaskDataError: the data of the task is missing.
        RunNameError: checkpoints of this name exist, or another process writes them.
        CheckpointError, FileFormatError: the checkpoint belongs to another training, or is damaged.
        Diverged: the network diverges without growth.
    """
    with prepared_controller(config, resume) as training:
        return training.run(tracker)


@contextmanager
def prepared_controller(config: TrainControllerConfig, resume: Path | None = None) -> Iterator["ControllerTraining"]:
    """Check all that can be checked, and lock the folder during the block, before a run starts in a tracking store.

    Raises:
        MetaoptError: the training is refused, as in `train_controller`; nothing was changed.
    """
    problem = Problem(config, find_device(config.device))
    with threads_for(problem.weights, config.threads):
        twins = Twins(problem, config.twin_dir)
        state = ControllerTrainingState(config, problem, twins)
        if resume is not None:
            state.load(resume)
        keep = resume is not None and any(config.checkpoint_folder.glob(f"{_OWNED}.safetensors"))
        with claim_run_folder(
            config.checkpoint_folder,
            _OWNED,
            resume=keep,
            overwrite=config.overwrite and not keep,
            resume_flag="--resume-from and its last checkpoint",
        ) as folder:
            yield ControllerTraining(config, problem, twins, state, folder, resume)


class ControllerTraining:
    """A training of a controller whose input is checked, and its loop over rollouts.

    Args:
        problem: what is trained.
        twins: losses of runs without growth.
        state: the policy, new or resumed.
        folder: folder of the checkpoints.
        resume: checkpoint that the state was loaded from.
    """

    def __init__(
        self,
        config: TrainControllerConfig,
        problem: Problem,
        twins: Twins,
        state: ControllerTrainingState,
        folder: ClaimedFolder,
        resume: Path | None = None,
    ) -> None:
        self.config, self.problem, self.twins = config, problem, twins
        self.folder = folder
        self._state = state
        options = TASKS.get(config.task).Config.from_mapping(problem.facts["task_config"])
        data = data_set(config.task, options, problem.facts["data"])
        parents = (data, *problem.parents, *(() if resume is None else file_parents(resume)))
        self._origin = Origin(Generator.of("train-controller", config), parents)

    def run(self, tracker: Tracker) -> TrainedController:
        """Train up to the last rollout, as `train_controller` does."""
        config, state = self.config, self._state
        self.folder.clear()
        self._describe(tracker)
        if config.imitate is not None and not state.rollout:
            self._imitate(tracker)
        rollouts = range(state.rollout, config.rollouts)
        with progress(len(rollouts), f"controller for {config.title}", "rollout") as bar:
            for _ in rollouts:
                self._rollout(tracker, bar)
                stops = control.stop_requested and state.rollout < config.rollouts
                if stops or (fires(state.rollout, config.checkpoint_every) and state.rollout < config.rollouts):
                    self._save(tracker)
                if stops:
                    log.info("the training stops after rollout %d, as requested", state.rollout)
                    raise StopRequested
        checkpoint = self._save(tracker)
        file = self._save_policy(tracker, checkpoint)
        trained = TrainedController(state.policy, file, checkpoint, state.metrics, state.curve)
        tracker.describe(result=describe_training(trained))
        return trained

    def _describe(self, tracker: Tracker) -> None:
        config = self.config
        purpose = (
            f"Phase 3: trains a controller for {config.title} on {counted(config.episodes, 'episode')} of "
            f"{config.steps} steps, reward {config.reward}"
        )
        resumed = f", resumed from {config.resume_from}" if config.resume_from else ""
        tracker.describe(purpose=f"{purpose}{resumed}.")
        tracker.params({**config.to_mapping(), "decisions_per_episode": config.decisions})
        tracker.tags({"metaopt.phase": "controller", "metaopt.run_name": config.run_name})
        tracker.tags({"metaopt.device": device_name(self.problem.device)})
        if self._state.rollout:
            tracker.tags({"resumed_from_step": self._state.decisions})
        tracker.text(replace(config, overwrite=False).to_json(), "config.json")
        tracker.dataset(config.task, config.data_source, self.problem.facts["data"], "train, guard")

    def _imitate(self, tracker: Tracker) -> None:
        metrics = self._state.imitate()
        imitated = str(self._state.imitated)
        log.info(
            "the policy imitates %s: %.0f %% of its decisions, return %+.3g",
            imitated, 100 * metrics["agreement"], metrics["demonstrated_return"],
        )  # fmt: skip
        tracker.metrics(metrics, 0)
        tracker.tags({"metaopt.imitated": imitated})

    def _rollout(self, tracker: Tracker, bar: Progress) -> None:
        started = time.monotonic()
        metrics = self._state.train()
        tracker.metrics({**metrics, "seconds": time.monotonic() - started}, self._state.decisions)
        self._draw(tracker)
        bar.update(mean_return=metrics["return"])

    def _draw(self, tracker: Tracker) -> None:
        curve, per_rollout = self._state.curve, self._state.decisions // self._state.rollout
        figure = line_chart(
            f"Return of a controller for {self.config.title}",
            "Mean over the episodes between two updates of the policy; 0 is a run without growth",
            "decisions",
            "return [sigma]",
            [per_rollout * (index + 1) for index in range(len(curve))],
            [{"return": point[0]} for point in curve],
            reference=0.0,
        )
        tracker.figure(figure, "return")

    def _save(self, tracker: Tracker) -> Path:
        path = self.config.checkpoint_folder / f"controller_rollout_{self._state.rollout}.safetensors"
        self._state.save(path, self._facts(), self._about(tracker.run_id))
        tracker.files([*files_of(path), *files_beside(path)], f"checkpoints/rollout_{self._state.rollout:04d}")
        return path

    def _about(self, run_id: str | None) -> TrainingFacts:
        """What the sidecar of a checkpoint states."""
        config, state = self.config, self._state
        return TrainingFacts(
            training="controller",
            run_name=config.run_name,
            run_id=run_id,
            step=state.decisions,
            metrics=state.metrics,
            origin=self._origin,
        )

    def _save_policy(self, tracker: Tracker, checkpoint: Path) -> Path:
        path = self.config.checkpoint_folder / "controller_policy.safetensors"
        # Without the run, so that a resumed training gives the same bytes as an uninterrupted one.
        parents = [replace(each, name=checkpoint.name, run_id=None) for each in file_parents(checkpoint)]
        save_policy(self._state.policy, path, {**self._facts(), **made_from(parents)})
        tracker.files([path], "policy")
        return path

    def _facts(self) -> dict[str, Any]:
        episodes = self._state.rollout * self.config.episodes_per_rollout
        episode = self.config.episode.to_mapping()
        facts = {"episode": episode, "episodes": episodes, "metrics": self._state.metrics}
        imitated = {} if self._state.imitated is None else {"imitated": self._state.imitated}
        return {FACTS: facts | imitated}


def describe_training(trained: TrainedController) -> str:
    """The returns of a training as a sentence, in Markdown."""
    first, last = trained.curve[0], trained.curve[-1]
    kept = ""
    if "best_rollout" in trained.metrics:
        kept = (
            f" Kept: the policy after rollout {trained.metrics['best_rollout']:.0f} (0: the imitation), the best on "
            f"held-out random seeds, return **{trained.metrics['best_selection_return']:+.3g}**."
        )
    return (
        f"mean return **{last[0]:+.3g}** in the last rollout, {first[0]:+.3g} in the first one, 0 without growth; loss "
        f"**{last[1]:.3g}** times that without growth; it still explores in training.{kept}"
    )
