"""Phase 2: train a generative optimizer and register it, in an MLflow run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.config import read_config_file
from ..core.errors import InvalidConfig
from ..evaluation.config import EvaluateConfig
from ..metatraining.trainer import TrainedOptimizer, TrainOptimizerConfig, train_optimizer
from ..recording.text import learned
from ..targets import target_config
from ..tasks import TASKS, load_task, task_config
from ..tracking import (
    CHAMPION,
    MlflowTracker,
    RunReference,
    fetch_trajectories,
    find_trajectory_runs,
    learned_from,
    register_optimizer,
    resolve_checkpoint,
    start_run,
    version_link,
)
from .evaluate_optimizer import Evaluation, evaluate

_SHOWN = 8  # names in one line [count]


@dataclass(frozen=True)
class TrainedVersion:
    """What phase 2 trained.

    Attributes:
        run: the MLflow run.
        trained: the optimizer, its last checkpoint and the last figures.
        model_uri: address of the registered version; None where nothing was registered.
        evaluation: on the case of `promote_on`; None without one.
    """

    run: RunReference
    trained: TrainedOptimizer
    model_uri: str | None
    evaluation: Evaluation | None


def train(config: TrainOptimizerConfig) -> TrainedVersion:
    """Train a generative optimizer on recorded trajectories or in online rounds, and register it.

    Without `promote_on` the new version becomes champion; with it only if it is better there than the present one.

    Raises:
        MetaoptError: as for `train_optimizer` and `evaluate`; or the tracking store does not answer.
    """
    case = _case(config)
    with start_run(f"train on {config.title}: {config.optimizer_model}", config) as tracker:
        trained = train_tracked(config, tracker)
        version = register(config, trained, tracker, None if case else CHAMPION)
    uri = None if version is None else f"models:/{config.model_name}/{version}"
    evaluation = evaluate(replace(case, optimizer=uri)) if case is not None and uri is not None else None
    return TrainedVersion(tracker.reference, trained, uri, evaluation)


def _case(config: TrainOptimizerConfig) -> EvaluateConfig | None:
    """What decides about promotion, with its data: read now, for it would be late to refuse it after hours of training.

    A relative data folder of the case starts at `data_dir`, as those of a mixture do; that is also where it is if the
    case does not say.
    """
    if config.promote_on is None:
        return None
    if config.model_name is None:
        raise InvalidConfig(f"promote_on is {config.promote_on}, but model_name is none: nothing would be registered")
    case = EvaluateConfig.from_mapping({**read_config_file(config.promote_on), "promote": True})
    if config.data_dir is not None and "data_dir" in TASKS.get(case.task).Config.names():
        case = replace(case, data_dir=config.data_dir / (case.data_dir or ""))
    task = load_task(case.task, **task_config(case.task, case.task_options, case.data_dir))
    target_config(case.target_model, task.model_facts, case.target_options)
    return case


def train_tracked(config: TrainOptimizerConfig, tracker: MlflowTracker) -> TrainedOptimizer:
    """Train with what the tracking server adds: missing trajectories, the checkpoint to go on from, lineage."""
    names = [] if config.rounds else config.run_names
    for name in names:
        fetch_trajectories(name, config.trajectory_dir)
    resume = None
    if config.resume_from is not None:
        point = resolve_checkpoint(config.resume_from, config.checkpoint_dir / ".downloads")
        resume = point.path
        tracker.tags({"metaopt.resumed_from": config.resume_from, "resumed_from_run_id": point.run_id or "none"})
    trained = train_optimizer(config, tracker, resume)
    parents = {f"{name}/seed_{run.seed}": run.run_id for name in names for run in find_trajectory_runs(name)}
    learned_from(tracker, [parents[name] for name in [*trained.learned, *trained.held_out] if name in parents])
    return trained


def register(
    config: TrainOptimizerConfig, trained: TrainedOptimizer, tracker: MlflowTracker, alias: str | None = CHAMPION
) -> int | None:
    """Register a trained optimizer as a new version, unless the configuration says not to."""
    if config.model_name is None:
        return None
    version = register_optimizer(
        tracker,
        trained.optimizer,
        trained.layouts,
        name=config.model_name,
        description=_about(config, trained),
        tags={"trained_on": ", ".join(trained.subjects), "averaging": trained.optimizer.averaging, **_ground(config)},
        stride=trained.stride,
        facts={"learned_from": trained.learned, "held_out": trained.held_out, "figures": trained.figures},
        alias=alias,
    )
    tracker.note(see=f"Registered as {version_link(config.model_name, version)}")
    return version


def _ground(config: TrainOptimizerConfig) -> dict[str, str]:
    if config.mixture is not None:
        return {"mixture": config.mixture.name}
    return {"run_name": config.run_name, "objective": config.objective, "training_mode": config.training_mode}


def _about(config: TrainOptimizerConfig, trained: TrainedOptimizer) -> str:
    """What an optimizer was trained on and how it did on what was held out there, in Markdown."""
    how = "live trainings" if config.rounds else "recorded trajectories"
    held_out = f"; held out: {_named(trained.held_out)}" if trained.held_out else ""
    judged = learned(trained.figures) or "nothing was held out"
    return (
        f"**Task and data:** {', '.join(trained.subjects)}; {how}: {_named(trained.learned)}{held_out}.\n"
        f"**In meta-training, on what was held out:** {judged}."
    )


def _named(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
