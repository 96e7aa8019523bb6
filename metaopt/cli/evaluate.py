"""`metaopt evaluate`: judge a generative optimizer."""

import click

from ..evaluation import EvaluateConfig, evaluate, terminal_table
from ..tracking import load_optimizer, start_run
from .options import config_command


@config_command(EvaluateConfig, "evaluate")
def command(config: EvaluateConfig) -> None:
    """Judge a generative optimizer on held-out random seeds against all baselines."""
    optimizer = load_optimizer(config.optimizer)
    with start_run(f"evaluate on {config.task}", config, tags={"metaopt.phase": "evaluation"}) as tracker:
        comparison = evaluate(config, optimizer, tracker)
    click.echo(terminal_table(comparison))
    click.echo(f"figures and report.md: run {tracker.run_id} in `mlflow ui`")
