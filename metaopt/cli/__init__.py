"""The command line: each command parses its flags, calls a workflow and prints the result."""

import logging
import os
import sys
from collections.abc import Sequence

import click

from ..core.registry import suggest
from ..core.signals import terminable
from ..core.text import shown
from .completion import outline
from .exit_codes import one_line_errors

COMMANDS = {
    "main": "Run all three phases: record, train, evaluate, register.",
    "train-target": "Phase 1: train targets, record their weight trajectories.",
    "train-optimizer": "Phase 2: train a generative optimizer on trajectories.",
    "train-controller": "Phase 3: train a controller that decides when a network grows.",
    "evaluate": "Compare a generative optimizer with its baselines.",
    "evaluate-controller": "Compare a controller of phase 3 with others.",
    "register": "Register a checkpoint of phase 2 as a version.",
    "generate": "Generate the weights of a later step into a file.",
    "compare": "Compare a training of your own with and without nowcasts.",
    "export-adapter": "Write adapters as files that PEFT and diffusers load.",
    "inspect": "Show what safetensors files contain, from their headers.",
    "diagnose": "Compare a network before and after a change by probes.",
    "validate": "Check recordings, checkpoints, models and files of conversations.",
    "campaign": "Make, list and run campaigns of jobs that belong together.",
    "config": "Explain the value of each parameter and its origin.",
    "hosts": "List machines, and check that they can be used.",
    "queue": "Add jobs to a queue, look at them, and steer them.",
    "worker": "Run the jobs of a queue, one after the other.",
    "dashboard": "Serve a page that shows a queue, its workers and losses, and steers its jobs.",
    "reports": "List the reports of inspections and probes.",
    "ledger": "List the checkpoints and what wrote them, or check every bit.",
    "lineage": "Show what a model, a checkpoint or a trajectory was made from.",
    "prune": "Plan which checkpoints to delete, and delete them with --apply.",
    "list": "Every task, target, optimizer, probe and check by name, and its options.",
    "upload": "Send what a tracking store did not accept during a run.",
}
"""Summary of each command, for `metaopt --help` and for the help of the command."""


class _Commands(click.Group):
    """Imports commands at first use, accepts global flags after the command too, and prints errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = name.replace("_", "-")
        if name not in COMMANDS:
            return None
        if ctx.resilient_parsing:  # shell completion must not wait for imports
            return outline(name, self._global_flags())
        # Threads that wait for others sleep: in a loop they would take the cores from them. OpenMP reads it at import.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from .commands import BUILDERS  # most of them import torch, which takes seconds

        return BUILDERS[name](COMMANDS[name])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name for option in self._global_flags() for name in option.opts}
        return super().parse_args(ctx, sorted(args, key=lambda word: word not in flags))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].replace("_", "-") not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"unknown command {shown(args[0])}: {suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        with one_line_errors(ctx, ctx.params["debug"]):
            return super().invoke(ctx)

    def _global_flags(self) -> list[click.Option]:
        return [each for each in self.params if isinstance(each, click.Option) and each.name in _GLOBAL_FLAGS]


_GLOBAL_FLAGS = ("debug", "quiet", "as_json")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show stack traces of errors and messages of MLflow.")
@click.option("--quiet", is_flag=True, help="Show warnings and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document, for scripts.")
@click.version_option(package_name="metaopt")
def cli(debug: bool, quiet: bool, as_json: bool) -> None:
    """Learn optimizers from the weight trajectories of networks.

    `metaopt COMMAND --help` lists the parameters of a command. --config reads them from a YAML file. The flags below
    are accepted before and after the command.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("metaopt").setLevel(logging.WARNING if quiet else logging.INFO)
    if not debug and "mlflow" in sys.modules:  # imported by the command if it needs it
        from ..tracking import silence_mlflow

        silence_mlflow()


def program(args: Sequence[str] | None = None) -> None:
    """Run the command line as the program of this process."""
    with terminable(until_exit=True):
        cli(args=args, prog_name="metaopt")


def run_entry_point(name: str) -> None:
    """Run a command with the flags of `mlflow run`, which passes all parameters.

    Flags at their default are dropped, so that a configuration file can set them.
    """
    from .options import without_defaults

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    program([name, *without_defaults(command, sys.argv[1:])])
