"""Phase 2: trains a generative optimizer in an MLflow run and registers it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..core.config import read_config_file
from ..core.errors import InvalidConfig
from ..evaluation.config import EvaluateConfig
from ..metatraining.trained import TrainedOptimizer
from ..metatraining.trainer import MetaTraining, TrainOptimizerConfig, prepared_training
from ..tasks import TASKS
from ..tracking import (
    MlflowTracker,
    check_metric_names,
    fetch_trajectories,
    link_trajectories,
    resolve_checkpoint,
    start_run,
)
from ..trajectories.recording_file import read_run_id
from ..trajectories.run_folder import DOWNLOADS
from .evaluate_optimizer import Evaluation, check_case, evaluate
from .model_names import check_given_name
from .output_file import check_output
from .promotion import Made
from .register_optimizer import register_version


@dataclass(frozen=True)
class TrainedVersion(Made):
    """Result of phase 2.

    Attributes:
        trained: the optimizer, its last checkpoint and its last metrics.
        evaluation: evaluation that decided about promotion; None without `promote_on`.
    """

    trained: TrainedOptimizer
    evaluation: Evaluation | None = None


def train(config: TrainOptimizerConfig) -> TrainedVersion:
    """Train a generative optimizer on recorded trajectories or online, and register it.

    The new version is `candidate`. It becomes champion if there is no champion, or if it beats the champion in the
    evaluation that `promote_on` names.

        from metaopt import workflows

        config = workflows.TrainOptimizerConfig(run_name="digits", epochs=1, pairs_per_epoch=64)
        made = workflows.train(config)
        print(made.model_uri, made.trained.checkpoint)

    Raises:
        MetaoptError: as for `train_optimizer` and `evaluate`; or the tracking store cannot be used.
    """
    check_given_name(config.model_name)
    if config.mixture is not None:
        check_metric_names(read_config_file(config.mixture))
    case = _promotion_case(config)
    with (
        tracked_training(config) as training,
        start_run(
            f"train on {config.title}: {config.optimizer_model}", config, folder=training.training.folder
        ) as tracker,
    ):
        trained = training.run(tracker)
        if config.model_name is None:
            return TrainedVersion(tracker.reference, None, None, trained)
        candidate = register_version(trained, config.model_name, tracker)
        if case is None:
            return TrainedVersion(tracker.reference, candidate.uri, candidate.decide().log(tracker), trained)
    evaluation = evaluate(replace(case, optimizer=candidate.uri))
    return TrainedVersion(tracker.reference, candidate.uri, evaluation.promotion, trained, evaluation)


def _promotion_case(config: TrainOptimizerConfig) -> EvaluateConfig | None:
    """Read the evaluation that decides about promotion, and load its data: errors must come before hours of training.

    A relative `data_dir` of the evaluation starts at the `data_dir` of the training, which is also its default.
    """
    if config.promote_on is None:
        return None
    if config.model_name is None:
        raise InvalidConfig(
            f"promote_on is {config.promote_on}, but model_name is none, so that no version is registered; give a "
            "model_name, or leave promote_on out"
        )
    values = {**read_config_file(config.promote_on), "promote": True}
    case = EvaluateConfig.from_file_values(values, config.promote_on, trusted=config.trust_config)
    if config.data_dir is not None and "data_dir" in TASKS.get(case.task).Config.names():
        case = replace(case, data_dir=config.data_dir / (case.data_dir or ""))
    if case.output is not None:
        check_output(case.output, case.overwrite)
    check_case(case)
    return case


@dataclass(frozen=True)
class TrackedTraining:
    """A meta-training whose input is complete and checked, and what its run records about that input.

    Attributes:
        tags: where the training resumes.
    """

    config: TrainOptimizerConfig
    training: MetaTraining
    tags: Mapping[str, str]

    def run(self, tracker: MlflowTracker) -> TrainedOptimizer:
        """Train in a run, and link the runs of the trajectories."""
        tracker.tags(self.tags)
        trained = self.training.run(tracker)
        folders = [self.config.trajectory_dir / name for name in [*trained.training_names, *trained.held_out_names]]
        link_trajectories(tracker, [run_id for folder in folders if (run_id := read_run_id(folder)) is not None])
        return trained


@contextmanager
def tracked_training(
    config: TrainOptimizerConfig, experiment: str | None = None, trusted_names: Collection[str] = ()
) -> Iterator[TrackedTraining]:
    """Fetch missing trajectories and the checkpoint to resume from, and check the training, before its run starts.

    Args:
        experiment: ID of the experiment with the recordings; by default that of the next run.
        trusted_names: dotted paths of networks that trajectories may name, because the user gave them in this call.
    Raises:
        MetaoptError: the training is refused, as in `train_optimizer`.
    """
    for name in [] if config.mixture else config.run_names:
        fetch_trajectories(name, config.trajectory_dir, experiment)
    resume, tags = None, {}
    if config.resume_from is not None:
        point = resolve_checkpoint(config.resume_from, config.checkpoint_dir / DOWNLOADS)
        resume = point.path
        tags = {"metaopt.resumed_from": config.resume_from, "resumed_from_run_id": point.run_id or "none"}
    with prepared_training(config, resume, trusted_names) as training:
        yield TrackedTraining(config, training, tags)
