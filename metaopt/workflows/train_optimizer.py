"""Phase 2: trains a generative optimizer in an MLflow run and registers it."""

from dataclasses import dataclass, replace

from ..core.config import read_config_file
from ..core.errors import InvalidConfig
from ..evaluation.config import EvaluateConfig
from ..metatraining.trained import TrainedOptimizer
from ..metatraining.trainer import TrainOptimizerConfig, train_optimizer
from ..targets import target_config
from ..tasks import TASKS, load_task, task_config
from ..tracking import (
    MlflowTracker,
    RunReference,
    check_metric_names,
    fetch_trajectories,
    link_trajectories,
    resolve_checkpoint,
    start_run,
)
from ..trajectories.recording_file import read_run_id
from .evaluate_optimizer import Evaluation, evaluate
from .model_names import check_given_name
from .output_file import check_output
from .register_optimizer import register_version


@dataclass(frozen=True)
class TrainedVersion:
    """Result of phase 2.

    Attributes:
        run: the MLflow run.
        trained: the optimizer, its last checkpoint and its last metrics.
        model_uri: URI of the registered version; None if `model_name` is None.
        promotion: which version is champion, and why, as a sentence; None if `model_name` is None.
        evaluation: evaluation that decided about promotion; None without `promote_on`.
    """

    run: RunReference
    trained: TrainedOptimizer
    model_uri: str | None
    promotion: str | None
    evaluation: Evaluation | None


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
    with start_run(f"train on {config.title}: {config.optimizer_model}", config) as tracker:
        trained = train_tracked(config, tracker)
        if config.model_name is None:
            return TrainedVersion(tracker.reference, trained, None, None, None)
        candidate = register_version(trained, config.model_name, tracker)
        if case is None:
            promotion = candidate.decide_without_comparison()
            tracker.describe(links=promotion)
            return TrainedVersion(tracker.reference, trained, candidate.uri, promotion, None)
    evaluation = evaluate(replace(case, optimizer=candidate.uri))
    return TrainedVersion(tracker.reference, trained, candidate.uri, evaluation.promotion, evaluation)


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
    task = load_task(case.task, **task_config(case.task, case.task_options, case.data_dir))
    target_config(case.target_model, task.model_facts, case.target_options)
    return case


def train_tracked(config: TrainOptimizerConfig, tracker: MlflowTracker) -> TrainedOptimizer:
    """Train in a run: fetch missing trajectories and the checkpoint to resume from, and link the runs of both."""
    names = [] if config.rounds else config.run_names
    for name in names:
        fetch_trajectories(name, config.trajectory_dir, tracker.experiment_id)
    resume = None
    if config.resume_from is not None:
        point = resolve_checkpoint(config.resume_from, config.checkpoint_dir / ".downloads")
        resume = point.path
        tracker.tags({"metaopt.resumed_from": config.resume_from, "resumed_from_run_id": point.run_id or "none"})
    trained = train_optimizer(config, tracker, resume)
    folders = [config.trajectory_dir / name for name in [*trained.training_names, *trained.held_out_names]]
    link_trajectories(tracker, [run_id for folder in folders if (run_id := read_run_id(folder)) is not None])
    return trained
