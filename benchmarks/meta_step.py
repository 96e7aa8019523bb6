"""One pair of meta-training with the objective `weights`: time and memory from the files to the optimizer's step.

Goal: time that grows linearly with the number of weights, and 3 GB of memory or less at 40 million.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from metaopt.metatraining.objectives import OBJECTIVES, judge_predictions
from metaopt.metatraining.state import MetaTrainingState
from metaopt.trajectories import Recorder, WeightTrajectoryDataset
from metaopt.weights.layout import Layout

from ._measure import SIZES, in_fresh_process, network, peak_memory, publish

_SNAPSHOTS = 6  # a history of five, and one to predict
_LAST_PAIR = -1
_STRIDE = 20


def record(size: str, folder: Path) -> None:
    """Write a trajectory whose weights take random steps."""
    model = network(size)
    recorder = Recorder(folder, {}, Layout.of(model))
    for number in range(_SNAPSHOTS):
        recorder.record(model, number * _STRIDE, number, {})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)


def measure(size: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """Train on the last pair of a trajectory, which has a whole history, again and again."""
    torch.set_num_threads(threads)
    imported = peak_memory()
    run = MetaTrainingState("PerceiverOptimizer", {}, seed=0, lr=1e-3, weight_decay=0.01, average=0.99)
    dataset = WeightTrajectoryDataset(folder, "sequential", run.model.history)
    pair = range(len(dataset))[_LAST_PAIR]
    seconds = [_timed_update(run, dataset, pair) for _ in range(steps + 1)][1:]
    weights = dataset.trajectories[0].layout.size
    peak = peak_memory()
    return {
        "network": size,
        "weights": weights,
        "threads": threads,
        "pairs": steps,
        "ms": 1e3 * median(seconds),
        "µs per 1,000 weights": 1e9 * median(seconds) / weights,
        "peak MB": peak,
        "MB above imports": peak - imported,
    }


def _timed_update(run: MetaTrainingState, dataset: WeightTrajectoryDataset, pair: int) -> float:
    """What phase 2 does with a batch, from the files to the optimizer's step [seconds]."""
    started = time.perf_counter()
    pairs, layout = dataset.batch([pair]), dataset.trajectories[0].layout
    predicted = run.model.generate(pairs.history, pairs.t_history, pairs.t_end, layout)
    run.update(judge_predictions(predicted, pairs, layout, OBJECTIVES["weights"], None, None).objective.mean())
    return time.perf_counter() - started


@click.command()
@click.option("--steps", default=10, show_default=True, help="Pairs that are timed; 2 at most at 40M.")
@click.option("--sizes", default=",".join(SIZES), show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(steps: int, sizes: str, threads: int, output: Path | None) -> None:
    """Time meta-training, each size in a fresh process; its trajectory is written by another one."""
    rows = []
    for size in sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process(record, size, Path(folder))
            rows.append(
                in_fresh_process(measure, size, Path(folder), threads, min(steps, 2) if size == "40M" else steps)
            )
    publish("a pair of meta-training, objective weights, history 5, one pair per batch", rows, output)


if __name__ == "__main__":
    main()
