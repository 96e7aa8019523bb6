"""Exit codes and error messages of the commands.

0: success. 1: error. 2: wrong usage, from click. 129: closed terminal (SIGHUP). 130: Ctrl-C. 143: SIGTERM.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from ..core.errors import MetaoptError
from ..core.signals import INTERRUPTED, ended_by_signal
from ..core.text import shortened

_LONGEST = 4000  # of a message; several runs can fail for different reasons [characters]

_HOW_TO_RESUME = {
    "main": "trajectories and checkpoints exist, but the main job starts from the beginning",
    "train-target": "resume with the same command and `--resume true`",
    "train-optimizer": "resume with `--resume-from` and the last checkpoint",
    "compare": "the same command resumes after the last finished training",
    "evaluate": "the same command resumes after the last finished training",
}


@contextmanager
def one_line_errors(context: click.Context, debug: bool) -> Iterator[None]:
    """Turn errors and signals into an exit code and a message without a stack trace.

    Args:
        context: of the group of commands.
        debug: let errors through, so that Python prints their stack traces.
    Raises:
        click.ClickException: an error that a user can act on.
        click.exceptions.Exit: Ctrl-C.
    """
    try:
        yield
    except BrokenPipeError:  # the reader, such as `head`, stopped reading; click exits
        raise
    except click.UsageError as error:  # click repeats the value
        if len(error.format_message()) <= _LONGEST:
            raise
        raise click.UsageError(shortened(error.format_message(), _LONGEST), error.ctx) from error
    except (MetaoptError, OSError) as error:
        if debug:
            raise
        raise click.ClickException(shortened(str(error), _LONGEST)) from error
    except KeyboardInterrupt as error:
        _print_how_to_resume(context.invoked_subcommand)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except SystemExit as error:
        if ended_by_signal(error):
            _print_how_to_resume(context.invoked_subcommand)
        raise


def _print_how_to_resume(command: str | None) -> None:
    resume = f"; {_HOW_TO_RESUME[command]}" if command in _HOW_TO_RESUME else ""
    with suppress(OSError):  # the terminal may be closed
        click.echo(f"Stopped; what was written is kept{resume}.", err=True)
