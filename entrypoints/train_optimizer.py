"""MLproject entry point `train_optimizer`: `metaopt train-optimizer`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("train-optimizer")
