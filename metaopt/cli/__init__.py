"""The command line. Each command parses, builds and calls; the work is done in the rooms below."""

import logging
import sys
from importlib import import_module

import click

from ..errors import MetaoptError

COMMANDS = {
    "main": "main_job",
    "train-target": "train_target",
    "train-optimizer": "train_optimizer",
    "evaluate": "evaluate",
    "generate": "generate",
}


class _Commands(click.Group):
    """Imports a command only when it is asked for, and prints errors of ours without a stack trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{COMMANDS[name]}", __name__).command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except MetaoptError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the stack trace of every error.")
@click.option("--quiet", is_flag=True, help="Show warnings and errors only.")
@click.version_option(package_name="metaopt")
def cli(debug: bool, quiet: bool) -> None:
    """Learn optimizers from how networks train."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("metaopt").setLevel(logging.WARNING if quiet else logging.INFO)


def run_entry_point(name: str) -> None:
    """Run a command as `mlflow run` does: with every parameter given, those at their default included.

    Parameters at their default are left out, so that a configuration file can set them.
    """
    from .options import without_defaults

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    cli(args=[name, *without_defaults(command, sys.argv[1:])], prog_name="metaopt")
