"""How a command ends: with an exit code that scripts can tell apart, and a message in the place of a stack trace.

0: done. 1: refused or failed. 2: wrong usage, from click. 130: Ctrl-C. 143: SIGTERM.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..core.errors import MetaoptError

INTERRUPTED = 130
TERMINATED = 143

_WAYS_BACK = {
    "main": "trajectories and checkpoints are there, but the main job starts from the beginning",
    "train-target": "go on with the same command and `--resume true`",
    "train-optimizer": "go on with `--resume-from` and the last checkpoint",
    "evaluate": "the same command goes on after the last finished training",
}


@contextmanager
def explained(context: click.Context, debug: bool) -> Iterator[None]:
    """Say in a sentence what ended a command.

    Args:
        context: of the group; it knows which command it is.
        debug: let errors through, so that Python shows their stack traces.
    Raises:
        click.ClickException: for what a user can act on.
        click.exceptions.Exit: for Ctrl-C.
    """
    try:
        yield
    except BrokenPipeError:  # whoever reads, such as `head`, has enough; click ends the process
        raise
    except (MetaoptError, OSError) as error:
        if debug:
            raise
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        _say_how_to_go_on(context.invoked_subcommand)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except SystemExit as error:
        if error.code == TERMINATED:
            _say_how_to_go_on(context.invoked_subcommand)
        raise


def _say_how_to_go_on(command: str | None) -> None:
    way_back = f"; {_WAYS_BACK[command]}" if command in _WAYS_BACK else ""
    click.echo(f"Stopped; what was written is kept{way_back}.", err=True)
