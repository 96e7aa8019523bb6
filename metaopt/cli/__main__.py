"""`python -m metaopt.cli`: the command line without the installed script `metaopt`."""

from . import program

if __name__ == "__main__":
    program()
