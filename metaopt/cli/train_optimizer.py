"""`metaopt train-optimizer`: phase 2."""

from collections.abc import Sequence
from dataclasses import replace

from ..configuration import read_config_file
from ..errors import InvalidConfig
from ..evaluation import EvaluateConfig, terminal_table
from ..targets import target_config
from ..tasks import TASKS, get_task, task_config
from ..tracking import (
    CHAMPION,
    MlflowTracker,
    fetch_trajectories,
    find_trajectory_runs,
    learned_from,
    register_optimizer,
    resolve_checkpoint,
    start_run,
    version_link,
)
from ..training.optimizer import TrainedOptimizer, TrainOptimizerConfig, train_optimizer
from ..training.wording import learned
from .evaluate import judge
from .options import config_command
from .results import Result, unmarked, where

_SHOWN = 8  # names in one line [count]


@config_command(TrainOptimizerConfig, "train-optimizer")
def command(config: TrainOptimizerConfig) -> Result:
    """Train a generative optimizer on recorded trajectories, or in live rounds (phase 2)."""
    case = _case(config)
    with start_run(f"train on {config.title}: {config.optimizer_model}", config) as tracker:
        trained = train_tracked(config, tracker)
        version = register(config, trained, tracker, None if case else CHAMPION)
    uri = None if version is None else f"models:/{config.model_name}/{version}"
    facts = {
        "run_id": tracker.run_id,
        "checkpoint": trained.checkpoint,
        "version": version,
        "model_uri": uri,
        "figures": trained.figures,
    }
    lines = {"checkpoint": str(trained.checkpoint), "run": where(tracker)}
    lines["result"] = unmarked(learned(trained.figures)) or "nothing was held out to judge on"
    if uri is None or case is None:
        now = {"registered": f"{uri}, now models:/{config.model_name}@{CHAMPION}"} if uri else {}
        return Result(facts, {**lines, **now}, [["metaopt", "evaluate", "--optimizer", uri or str(trained.checkpoint)]])
    judged = judge(replace(case, optimizer=uri))
    lines = {"checkpoint": lines["checkpoint"], "run": lines["run"], "registered": uri, **judged.lines}
    return Result({**facts, "evaluation": judged.facts}, lines, [["mlflow", "ui"]], terminal_table(judged.comparison))


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
    task = get_task(case.task, **task_config(case.task, case.task_options, case.data_dir))
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
