"""`python -m metaopt.cli`: the command line where no console script is installed."""

from . import cli

if __name__ == "__main__":
    cli(prog_name="metaopt")
