"""Phase 3: trains a controller in an MLflow run and registers its policy."""

from dataclasses import dataclass
from pathlib import Path

from ..reinforcement.config import TrainControllerConfig
from ..reinforcement.training import TrainedController, describe_training, prepared_controller
from ..tracking import MlflowTracker, RunReference, register_policy, resolve_checkpoint, start_run, version_link
from .model_names import AUTO, check_given_name, controller_name
from .promotion import Candidate, Promotion


@dataclass(frozen=True)
class ControllerVersion:
    """Result of phase 3.

    Attributes:
        run: the MLflow run.
        trained: the policy, its file, its last checkpoint and its last metrics.
        model_uri: URI of the registered version; None if `model_name` is None.
        promotion: which version is champion, and why; None if `model_name` is None.
    """

    run: RunReference
    trained: TrainedController
    model_uri: str | None
    promotion: Promotion | None


def train_policy(config: TrainControllerConfig) -> ControllerVersion:
    """Train a controller that decides when a network grows, and register its policy.

    The new version is `candidate`, and champion if there is none.

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
        point = resolve_checkpoint(config.resume_from, config.checkpoint_dir / ".downloads")
        resume = point.path
        tags = {"metaopt.resumed_from": config.resume_from, "resumed_from_run_id": point.run_id or "none"}
    with (
        prepared_controller(config, resume) as training,
        start_run(f"train a controller for {config.title}", config, tags=tags) as tracker,
    ):
        trained = training.run(tracker)
        if config.model_name is None:
            return ControllerVersion(tracker.reference, trained, None, None)
        candidate = _register(config, config.model_name, trained, tracker)
        promotion = candidate.decide_without_comparison()
        tracker.describe(links=promotion.sentence)
        return ControllerVersion(tracker.reference, trained, candidate.uri, promotion)


def _register(
    config: TrainControllerConfig, model_name: str, trained: TrainedController, tracker: MlflowTracker
) -> Candidate:
    name = controller_name(config.task, config.target_model) if model_name == AUTO else model_name
    about = (
        f"**Task and network:** {config.title}, trainings of {config.steps} steps with {config.base_optimizer} at lr "
        f"{config.lr:g}; {config.episodes} episodes.\n**Return in training:** {describe_training(trained)}"
    )
    tags = {"trained_on": config.title, "reward": config.reward, "data": Path(config.data_dir or config.task).name}
    version = register_policy(tracker, trained.policy, trained.file, name=name, description=about, tags=tags)
    tracker.describe(links=f"Registered as {version_link(name, version)}")
    return Candidate.of(name, version)
