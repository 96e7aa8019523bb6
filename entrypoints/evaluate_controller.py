"""MLproject entry point `evaluate_controller`: `metaopt evaluate-controller`."""

from metaopt.cli import run_entry_point

if __name__ == "__main__":
    run_entry_point("evaluate-controller")
