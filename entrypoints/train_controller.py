"""MLproject entry point `train_controller`: `metaopt train-controller`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("train-controller")
