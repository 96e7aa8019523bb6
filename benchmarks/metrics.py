"""Cost of logging ten thousand metrics to MLflow, relative to a tracker that ignores them.

Goal: at most 2 s.
"""

import tempfile
from pathlib import Path
from typing import Any

import click

from metaopt.core.config import Config
from metaopt.core.tracker import SilentTracker, Tracker
from metaopt.tracking import connect, start_run

from ._measure import duration, in_fresh_process, publish


class NoConfig(Config):
    """A run without parameters."""


def measure(tracked: bool, metrics: int, at_once: int) -> dict[str, Any]:
    """Log metrics to a new SQLite store, or to a tracker that ignores them."""
    if not tracked:
        took, ended = duration(lambda: _write(SilentTracker(), metrics, at_once)), 0.0
    else:
        with tempfile.TemporaryDirectory() as folder:
            uri = f"sqlite:///{folder}/mlflow.db"
            connect(uri)  # creates the store before the measurement
            run = start_run("benchmark", NoConfig(), tracking_uri=uri)
            tracker = run.__enter__()
            took = duration(lambda: _write(tracker, metrics, at_once))
            ended = duration(lambda: run.__exit__(None, None, None))
    return {
        "tracker": "MLflow" if tracked else "none",
        "metrics": metrics,
        "per call": at_once,
        "seconds": (took + ended) / 1000,
        "of it at the end": ended / 1000,
    }


def _write(tracker: Tracker, metrics: int, at_once: int) -> None:
    for step in range(metrics // at_once):
        tracker.metrics({f"metric_{number}": 1 / (1 + step) for number in range(at_once)}, step)


@click.command()
@click.option("--metrics", default=10_000, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(metrics: int, output: Path | None) -> None:
    """Time metrics, each case in a fresh process."""
    rows = [in_fresh_process(measure, tracked, metrics, many) for many in (1, 5) for tracked in (False, True)]
    publish("writing metrics", rows, output)


if __name__ == "__main__":
    main()
