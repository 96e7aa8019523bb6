"""`metaopt generate`: next-step weights, from files to a file."""

import click

from ..generation import GenerateConfig, generate
from ..nowcast import load_optimizer
from ..tracking import start_run
from ..weights.files import files_of
from .options import config_command


@config_command(GenerateConfig, "generate")
def command(config: GenerateConfig) -> None:
    """Generate the weights of a later step from a recorded trajectory."""
    optimizer = load_optimizer(config.optimizer)
    with start_run(f"generate {config.output.name}", config, tags={"metaopt.phase": "generation"}) as tracker:
        generated = generate(config, optimizer)
        tracker.files(files_of(generated.path), "weights")
    click.echo(f"weights for step {generated.t_end:g}, from step {generated.t_start:g}: {generated.path}")
