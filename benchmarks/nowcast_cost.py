"""Cost of a nowcast during training: the forecast, and the changes of weights, average and history.

Without a guard it is one forecast. With a guard there are four forecasts, each written to the network for the guard.
The guard of this benchmark costs nothing and returns falling losses.

Goal, without a guard, on 2 cores: TargetCNN on 28×28 images (421,642 weights) in at most 50 ms and 300 MB, 10 million
weights in 1.5 s, 100 million in 20 s and 1.5 GB in addition to the weights and the history.
"""

from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from metaopt import Nowcast, load_optimizer

from ._measure import TARGET_CNN, duration, in_fresh_process, network, peak_memory, publish

_STRIDE = 2  # steps; short, because steps between snapshots are not measured


def measure(size: str, optimizer: str, guarded: bool, threads: int, nowcasts: int) -> dict[str, Any]:
    """Time steps with a snapshot and a nowcast, minus the time of steps with only a snapshot."""
    torch.set_num_threads(threads)
    generative = load_optimizer(optimizer)
    model = network(size)
    every = _STRIDE * generative.history  # the first nowcast finds a full history
    sgd = torch.optim.SGD(model.parameters(), lr=1e-3)
    guard = partial(next, count(0.0, -1.0)) if guarded else None
    horizons = [_STRIDE * number for number in range(1, 5)] if guarded else None
    wrapped = Nowcast(
        sgd, model, generative, every=every, stride=_STRIDE, horizons=horizons, guard=guard, max_overhead=None
    )
    for weights in model.parameters():
        weights.grad = torch.full_like(weights, 1e-3)
    costs, before = [], 0.0
    for number in range(nowcasts + 1):
        steps = [duration(wrapped.step) for _ in range(every - 1)]
        before = before or peak_memory()
        nowcast = duration(wrapped.step)
        if number:  # the first nowcast is a warm-up
            costs.append(nowcast - steps[_STRIDE - 1])
    return {
        "network": size,
        "weights": wrapped.layout.size,
        "guard calls": wrapped.events[-1].guard_calls,
        "threads": threads,
        "nowcasts": nowcasts,
        "median ms": median(costs),
        "min ms": min(costs),
        "max ms": max(costs),
        "MB above training": peak_memory() - before,
    }


@click.command()
@click.option("--optimizer", default="builtin", show_default=True, help="File, model URI, or builtin.")
@click.option("--sizes", default=f"{TARGET_CNN},10M,100M", show_default=True)
@click.option("--threads", default="1,2", show_default=True)
@click.option("--guard/--no-guard", default=False, show_default=True, help="Propose several horizons to a guard.")
@click.option("--nowcasts", default=5, show_default=True, help="Timed nowcasts, with a full history.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(optimizer: str, sizes: str, threads: str, guard: bool, nowcasts: int, output: Path | None) -> None:
    """Time nowcasts, each case in a fresh process."""
    rows = [
        in_fresh_process(measure, size, optimizer, guard, int(number), nowcasts)
        for size in sizes.split(",")
        for number in threads.split(",")
    ]
    publish(f"a nowcast by {optimizer}, {'with' if guard else 'without'} a guard", rows, output)


if __name__ == "__main__":
    main()
