"""`metaopt train-optimizer`: phase 2."""

import click

from ..tracking import (
    MlflowTracker,
    fetch_trajectories,
    find_trajectory_runs,
    register_optimizer,
    resolve_checkpoint,
    start_run,
)
from ..training.optimizer import TrainedOptimizer, TrainOptimizerConfig, train_optimizer
from .options import config_command


@config_command(TrainOptimizerConfig, "train-optimizer")
def command(config: TrainOptimizerConfig) -> None:
    """Train a generative optimizer on recorded trajectories, or in live rounds (phase 2)."""
    with start_run(
        f"{config.optimizer_model} on {config.grounds}", config, description=_description(config)
    ) as tracker:
        trained = train_tracked(config, tracker)
        version = register(config, trained, tracker, describe(trained))
    click.echo(f"checkpoint {trained.checkpoint}, run {tracker.run_id}")
    if version is not None:
        click.echo(f"registered as models:/{config.model_name}/{version} and models:/{config.model_name}@champion")
        click.echo(f"next: metaopt evaluate --optimizer models:/{config.model_name}/{version}")


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
    used = [parents[name] for name in [*trained.learned, *trained.held_out] if name in parents]
    tracker.tags({"metaopt.trajectory_runs": ",".join(used)})
    return trained


def register(
    config: TrainOptimizerConfig, trained: TrainedOptimizer, tracker: MlflowTracker, description: str
) -> int | None:
    """Register a trained optimizer as a new version, unless the configuration says not to."""
    if config.model_name is None:
        return None
    return register_optimizer(
        tracker,
        trained.optimizer,
        trained.layouts,
        name=config.model_name,
        description=description,
        tags={"run_name": config.run_name, "objective": config.objective, "training_mode": config.training_mode},
        stride=trained.stride,
        facts={"learned_from": trained.learned, "held_out": trained.held_out, "figures": trained.figures},
    )


def describe(trained: TrainedOptimizer) -> str:
    """What an optimizer was trained on and how it did on held-out runs, in Markdown."""
    lines = [f"{type(trained.optimizer).__name__}, trained on {', '.join(trained.learned)}."]
    judged = {name: value for name, value in trained.figures.items() if name.startswith("val_")}
    if judged:
        lines.append("On held-out runs:")
        lines += [f"- {name}: {value:.4g}" for name, value in judged.items()]
    return "\n".join(lines)


def _description(config: TrainOptimizerConfig) -> str:
    start = f", going on from {config.resume_from}" if config.resume_from else ""
    how = (
        f"{config.rounds} rounds of {config.inner_steps} steps, a nowcast every {config.every}"
        if config.rounds
        else f"{config.training_mode} pairs, objective {config.objective}, {config.epochs} epochs"
    )
    return f"Phase 2: {config.optimizer_model} on {config.grounds}, {how}{start}."
