"""Cost of recording a snapshot of TargetCNN on 28×28 images, relative to an epoch of training.

Goal: at most 5 % of an epoch.
"""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import click
import torch

from metaopt.optimizers import build_optimizer
from metaopt.recording.training import train_steps
from metaopt.targets import get_target_model
from metaopt.tasks import Batch, Classification, SplitConfig, Task, load_task
from metaopt.trajectories import Recorder
from metaopt.weights.layout import Layout

from ._measure import Times, in_fresh_process, publish, timed

_IMAGES = 8_000
_BATCH = 64


def measure(data_dir: Path | None, threads: int, epochs: int, snapshots: int) -> dict[str, Any]:
    """Time epochs, then snapshots of the trained network."""
    torch.set_num_threads(threads)
    task = load_task("mnist", data_dir=data_dir, download=False) if data_dir else _random_images()
    model = get_target_model("TargetCNN")
    optimizer = build_optimizer("Adam", model.parameters(), 1e-3, {})
    numbers = count()

    def epoch() -> None:
        batches = task.batches(_BATCH, 0, next(numbers))
        for _ in train_steps(model, optimizer, task, batches, torch.device("cpu")):
            pass

    trained = timed(epoch, epochs)
    with tempfile.TemporaryDirectory() as folder:
        recorded = _time_snapshots(model, Path(folder), snapshots)
    return {
        "data": "mnist" if data_dir else "random",
        "examples": len(task.splits["train"]),
        "threads": threads,
        "epoch ms": trained.median,
        "snapshot ms": recorded.median,
        "min ms": recorded.least,
        "max ms": recorded.most,
        "% of an epoch": 100 * recorded.median / trained.median,
    }


def _time_snapshots(model: torch.nn.Module, folder: Path, snapshots: int) -> Times:
    recorder = Recorder(folder, {"task": "benchmark"}, Layout.of(model))
    steps: Iterator[int] = count()
    return timed(lambda: recorder.record(model, next(steps), 0, {"train_loss": 0.5}), snapshots)


def _random_images() -> Task:
    images, labels = torch.randn(_IMAGES, 1, 28, 28), torch.randint(10, (_IMAGES,))
    few = Batch(images[:100], labels[:100])
    return Classification(Batch(images, labels), few, classes=10, config=SplitConfig())


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with MNIST/raw; by default, random images.")
@click.option("--threads", default="1,2", show_default=True)
@click.option("--epochs", default=3, show_default=True, help="Timed epochs.")
@click.option("--snapshots", default=20, show_default=True, help="Timed snapshots.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(data_dir: Path | None, threads: str, epochs: int, snapshots: int, output: Path | None) -> None:
    """Time recording."""
    rows = [in_fresh_process(measure, data_dir, int(many), epochs, snapshots) for many in threads.split(",")]
    publish("recording a snapshot of TargetCNN (421,642 weights)", rows, output)


if __name__ == "__main__":
    main()
