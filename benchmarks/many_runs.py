"""Throughput of recording: trajectories per minute one by one, in worker processes, and as one batched network.

Goal: batching a CNN of 14,378 weights records three times as many on two cores.
"""

import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.tasks import load_task

from ._measure import duration, in_fresh_process, publish

TARGETS: dict[str, dict[str, Any]] = {
    "MLP 2k": {"target_model": "MLP", "target_options": {"widths": [32, 8]}},
    "ConvNet 14k": {"target_model": "ConvNet", "target_options": {"widths": [16, 32, 32]}},
}
WAYS = {
    "one by one": (1, 1),
    "2 workers": (2, 1),
    "8 batched": (1, 8),
    "2 workers, 8 batched": (2, 8),
}
"""Number of workers, and of targets that each trains as one batched network."""


def measure(target: str, way: str, runs: int, epochs: int, data: dict[str, Any]) -> float:
    """Time one recording of several trajectories, including processes and files [ms]."""
    logging.disable(logging.INFO)
    load_task(data.get("task", "digits"), **{**data.get("task_options", {}), **_folder(data)})
    workers, batched = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainTargetConfig(
            **TARGETS[target],
            **data,
            runs=runs,
            epochs=epochs,
            workers=workers,
            vectorize=batched,
            trajectory_dir=Path(folder, "trajectories"),
            checkpoint_dir=Path(folder, "checkpoints"),
            checkpoint_every=epochs,
        )
        return duration(lambda: train_targets(config, SilentTracker()))


def _folder(data: dict[str, Any]) -> dict[str, Any]:
    return {"data_dir": data["data_dir"]} if "data_dir" in data else {}


@click.command()
@click.option("--runs", default=16, show_default=True, help="Trajectories to record [count].")
@click.option("--epochs", default=8, show_default=True, help="Epochs of 15 steps on digits, 88 on mnist.")
@click.option("--repeats", default=3, show_default=True, help="Measurements of each case; the cases alternate.")
@click.option("--targets", default=",".join(TARGETS), show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that contains MNIST/raw; by default, digits.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(runs: int, epochs: int, repeats: int, targets: str, data_dir: Path | None, output: Path | None) -> None:
    """Compare ways to record many trajectories."""
    data = {"task": "mnist", "data_dir": data_dir, "task_options": {"download": False}} if data_dir else {}
    rows = [row for target in targets.split(",") for row in _compare(target, runs, epochs, repeats, data)]
    publish("trajectories per minute", rows, output)


def _compare(target: str, runs: int, epochs: int, repeats: int, data: dict[str, Any]) -> list[dict[str, Any]]:
    times = [{way: in_fresh_process(measure, target, way, runs, epochs, data) for way in WAYS} for _ in range(repeats)]
    rows = []
    for way in WAYS:
        ratios = [each["one by one"] / each[way] for each in times]
        rows.append(
            {
                "target": target,
                "data": data.get("task", "digits"),
                "way": way,
                "per minute": 60_000 * runs / statistics.median(each[way] for each in times),
                "times as many": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
        )
    return rows


if __name__ == "__main__":
    main()
