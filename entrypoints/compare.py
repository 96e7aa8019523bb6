"""MLproject entry point `compare`: `metaopt compare`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("compare")
