"""Cost of one update of meta-training with the objective `weights`: time and memory, including reading the pair.

Goal: time grows linearly with the number of weights; at most 3 GB of memory at 40 million weights.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from metaopt.metatraining.objectives import OBJECTIVES, score_predictions
from metaopt.metatraining.state import MetaTrainingState
from metaopt.trajectories import Recorder, WeightTrajectoryDataset
from metaopt.weights.layout import Layout

from ._measure import SIZES, in_fresh_process, network, peak_memory, publish

_SNAPSHOTS = 6  # a history of five, and one to forecast
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
    """Train repeatedly on the last pair of a trajectory, which has a full history."""
    torch.set_num_threads(threads)
    imported = peak_memory()
    state = MetaTrainingState("PerceiverOptimizer", {}, seed=0, lr=1e-3, weight_decay=0.01, ema_decay=0.99)
    dataset = WeightTrajectoryDataset(folder, "sequential", state.model.history)
    pair = range(len(dataset))[_LAST_PAIR]
    seconds = [_timed_update(state, dataset, pair) for _ in range(steps + 1)][1:]
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


def _timed_update(state: MetaTrainingState, dataset: WeightTrajectoryDataset, pair: int) -> float:
    """Duration of reading a pair and one update [s]."""
    started = time.perf_counter()
    pairs, layout = dataset.batch([pair]), dataset.trajectories[0].layout
    predicted = state.model.generate(pairs.history, pairs.t_history, pairs.t_end, layout)
    state.update(score_predictions(predicted, pairs, layout, OBJECTIVES["weights"], None, None).objective.mean())
    return time.perf_counter() - started


@click.command()
@click.option("--steps", default=10, show_default=True, help="Timed updates; at most 2 at 40M.")
@click.option("--sizes", default=",".join(SIZES), show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(steps: int, sizes: str, threads: int, output: Path | None) -> None:
    """Time meta-training, each size in a fresh process; another process writes its trajectory."""
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
