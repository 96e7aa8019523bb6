"""`python -m metaopt.cli`: the command line without the installed script `metaopt`."""

from . import cli

if __name__ == "__main__":
    cli(prog_name="metaopt")
