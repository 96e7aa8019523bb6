"""MLproject entry point `train_target`: `metaopt train-target`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("train-target")
