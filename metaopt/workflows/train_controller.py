"""Phase 3: trains a controller in an MLflow run and registers its policy."""

import logging
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import MetaoptError
from ..core.paired_test import PromotionDecision
from ..reinforcement.comparison import CHAMPION, compare_with_champion, resolved
from ..reinforcement.config import TrainControllerConfig
from ..reinforcement.training import ControllerTraining, TrainedController, describe_training, prepared_controller
from ..tracking import MlflowTracker, origin_tag, register_policy, resolve_checkpoint, start_run, version_link
from ..trajectories.origin import Generator, Origin
from ..trajectories.parents import file_parents
from ..trajectories.run_folder import DOWNLOADS
from .evaluate_controller import compare_tracked
from .model_names import AUTO, check_given_name, controller_name
from .promotion import Candidate, Made

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControllerVersion(Made):
    """Result of phase 3.

    Attributes:
        trained: the policy, its file, its last checkpoint and its last metrics.
    """

    trained: TrainedController


def train_policy(config: TrainControllerConfig) -> ControllerVersion:
    """Train a controller that decides when a network grows, and register its policy.

    The new version is `candidate`. It becomes champion if there is no champion, or if it beats the champion on
    `comparison_seeds` held-out random seeds.

        from metaopt import workflows

        config = workflows.TrainControllerConfig(task="digits", steps=60, episodes=2, n_envs=2, train_seeds=2)
        made = workflows.train_policy(config)
        print(made.model_uri, made.trained.file)

    Raises:
        MetaoptError: as for `train_controller`; or the tracking store cannot be used.
    """
    check_given_name(config.model_name)
    resume, tags = None, {}
    if config.resume_from is not None:
        point = resolve_checkpoint(config.resume_from, config.checkpoint_dir / DOWNLOADS)
        resume = point.path
        tags = {"metaopt.resumed_from": config.resume_from, "resumed_from_run_id": point.run_id or "none"}
    with (
        prepared_controller(config, resume) as training,
        start_run(f"train a controller for {config.title}", config, tags=tags, folder=training.folder) as tracker,
    ):
        trained = training.run(tracker)
        if config.model_name is None:
            return ControllerVersion(tracker.reference, None, None, trained)
        candidate = _register(config, config.model_name, trained, tracker)
        promotion = candidate.decide(lambda: _compared(candidate, training, trained, tracker)).log(tracker)
        return ControllerVersion(tracker.reference, candidate.uri, promotion, trained)


def _compared(
    candidate: Candidate, training: ControllerTraining, trained: TrainedController, tracker: MlflowTracker
) -> PromotionDecision:
    """Compare a new policy with the champion. If that is not possible, the champion stays: the training is finished."""
    problem, seeds = training.problem, training.config.comparison_seeds
    if seeds == 0 or candidate.rival is None:
        return candidate.stays("were not compared")
    try:
        controllers = {candidate.uri: trained.policy, CHAMPION: resolved(problem, candidate.rival)}
        found = compare_tracked(problem, training.twins, controllers, seeds, tracker, candidate)
        return compare_with_champion(found)
    except MetaoptError as error:
        log.warning("%s is not compared with the champion: %s", candidate.uri, error)
        return candidate.stays(f"cannot be compared: {error}")


def _register(
    config: TrainControllerConfig, model_name: str, trained: TrainedController, tracker: MlflowTracker
) -> Candidate:
    name = controller_name(config.task, config.target_model) if model_name == AUTO else model_name
    about = (
        f"**Task and network:** {config.title}, trainings of {config.steps} steps with {config.base_optimizer} at lr "
        f"{config.lr:g}; {config.episodes} episodes.\n**Return in training:** {describe_training(trained)}"
    )
    tags = {"trained_on": config.title, "reward": config.reward, "data": Path(config.data_dir or config.task).name}
    tags |= origin_tag(Origin(Generator.of("train-controller", config), file_parents(trained.checkpoint)))
    version = register_policy(tracker, trained.policy, trained.file, name=name, description=about, tags=tags)
    tracker.describe(links=f"Registered as {version_link(name, version)}")
    return Candidate.of(name, version)
