"""Phase 2: trains a generative optimizer in an MLflow run and registers it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.config import read_config_file
from ..core.errors import InvalidConfig
from ..evaluation.config import EvaluateConfig
from ..metatraining.trainer import TrainedOptimizer, TrainOptimizerConfig, describe_validation, train_optimizer
from ..targets import target_config
from ..tasks import TASKS, load_task, task_config
from ..tracking import (
    CHAMPION,
    MlflowTracker,
    RunReference,
    fetch_trajectories,
    link_trajectories,
    register_optimizer,
    resolve_checkpoint,
    start_run,
    version_link,
)
from ..trajectories.recording import read_run_id
from .evaluate_optimizer import Evaluation, evaluate

_MOST_NAMES = 8  # in a description [count]


@dataclass(frozen=True)
class TrainedVersion:
    """Result of phase 2.

    Attributes:
        run: the MLflow run.
        trained: the optimizer, its last checkpoint and its last metrics.
        model_uri: URI of the registered version; None if `model_name` is None.
        evaluation: evaluation that decided about promotion; None without `promote_on`.
    """

    run: RunReference
    trained: TrainedOptimizer
    model_uri: str | None
    evaluation: Evaluation | None


def train(config: TrainOptimizerConfig) -> TrainedVersion:
    """Train a generative optimizer on recorded trajectories or online, and register it.

    The new version becomes champion. With `promote_on`, it must first beat the current champion in that evaluation.

        from metaopt import workflows

        config = workflows.TrainOptimizerConfig(run_name="digits", epochs=1, pairs_per_epoch=64)
        made = workflows.train(config)
        print(made.model_uri, made.trained.checkpoint)

    Raises:
        MetaoptError: as for `train_optimizer` and `evaluate`; or the tracking store cannot be used.
    """
    case = _promotion_case(config)
    with start_run(f"train on {config.title}: {config.optimizer_model}", config) as tracker:
        trained = train_tracked(config, tracker)
        version = register(config, trained, tracker, None if case else CHAMPION)
    uri = None if version is None else f"models:/{config.model_name}/{version}"
    evaluation = evaluate(replace(case, optimizer=uri)) if case is not None and uri is not None else None
    return TrainedVersion(tracker.reference, trained, uri, evaluation)


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


def register(
    config: TrainOptimizerConfig, trained: TrainedOptimizer, tracker: MlflowTracker, alias: str | None = CHAMPION
) -> int | None:
    """Register a trained optimizer as a new version; return its number, or None if `model_name` is None."""
    if config.model_name is None:
        return None
    version = register_optimizer(
        tracker,
        trained.optimizer,
        trained.layouts,
        name=config.model_name,
        description=_description(config, trained),
        tags={
            "trained_on": ", ".join(trained.problem_names),
            "averaging": trained.optimizer.averaging,
            **_data_tags(config),
        },
        stride=trained.stride,
        facts={"learned_from": trained.training_names, "held_out": trained.held_out_names, "figures": trained.metrics},
        alias=alias,
    )
    tracker.describe(links=f"Registered as {version_link(config.model_name, version)}")
    return version


def _data_tags(config: TrainOptimizerConfig) -> dict[str, str]:
    if config.mixture is not None:
        return {"mixture": config.mixture.name}
    return {"run_name": config.run_name, "objective": config.objective, "training_mode": config.training_mode}


def _description(config: TrainOptimizerConfig, trained: TrainedOptimizer) -> str:
    """The data of a training and its validation metrics, in Markdown."""
    how = "online trainings" if config.rounds else "recorded trajectories"
    names = _first_names(trained.training_names)
    held_out = f"; held out: {_first_names(trained.held_out_names)}" if trained.held_out_names else ""
    validation = describe_validation(trained.metrics) or "nothing was held out"
    return (
        f"**Task and data:** {', '.join(trained.problem_names)}; {how}: {names}{held_out}.\n"
        f"**Validation in meta-training:** {validation}."
    )


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
