"""MLproject entry point `register`: `metaopt register`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("register")
