"""Cost of one forecast from five snapshots: time and memory.

Goal, on 2 cores: TargetCNN on 28×28 images (421,642 weights) in at most 100 ms and 400 MB above the imports.
"""

from pathlib import Path
from typing import Any

import click
import torch

from metaopt import get_optimizer_model

from ._measure import SIZES, TARGET_CNN, in_fresh_process, layout_of, peak_memory, publish, timed

_HISTORY = 5
_STRIDE = 20.0


def measure(size: str, threads: int, calls: int) -> dict[str, Any]:
    """Time forecasts for a network of one size."""
    torch.set_num_threads(threads)
    imported = peak_memory()
    layout = layout_of(size)
    optimizer = get_optimizer_model("PerceiverOptimizer", history=_HISTORY).eval()
    history = torch.randn(1, _HISTORY, layout.size)
    times = _STRIDE * torch.arange(float(_HISTORY)).unsqueeze(0)
    took = timed(lambda: optimizer.predict(history, times, times[:, -1] + 100, layout), calls)
    return {
        "network": size,
        "weights": layout.size,
        "threads": threads,
        "calls": calls,
        "median ms": took.median,
        "min ms": took.least,
        "max ms": took.most,
        "MB above imports": peak_memory() - imported,
        "of it history MB": history.nbytes / 2**20,
    }


@click.command()
@click.option("--calls", default=20, show_default=True, help="Timed forecasts; a quarter as many from 4M on.")
@click.option("--sizes", default=",".join((TARGET_CNN, *SIZES)), show_default=True)
@click.option("--threads", default="1,2", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(calls: int, sizes: str, threads: str, output: Path | None) -> None:
    """Time forecasts, each case in a fresh process."""
    rows = [
        in_fresh_process(measure, size, int(count), max(calls // 4, 1) if size in ("4M", "40M") else calls)
        for size in sizes.split(",")
        for count in threads.split(",")
    ]
    publish("prediction of the next weights, history 5", rows, output)


if __name__ == "__main__":
    main()
