"""`metaopt train-target`: phase 1."""

import click

from ..tracking import start_run
from ..training.target import TrainTargetConfig, train_targets
from .options import config_command


@config_command(TrainTargetConfig, "train-target")
def command(config: TrainTargetConfig) -> None:
    """Train targets and record their weight trajectories (phase 1)."""
    with start_run(config.run_name, config, description=_description(config)) as tracker:
        folders = train_targets(config, tracker)
    click.echo(f"recorded {', '.join(map(str, folders))}")
    click.echo(f"next: metaopt train-optimizer --run-name {config.run_name}")


def _description(config: TrainTargetConfig) -> str:
    return (
        f"Phase 1: {config.target_model} on {config.task}, {config.base_optimizer} at lr {config.lr}, "
        f"{config.epochs} epochs; {config.runs} weight trajectories from random seed {config.seed}."
    )
