"""Helpers of the benchmarks: fresh processes, peak memory, durations, and tables of results."""

import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.targets import get_target_model
from metaopt.weights.layout import Layout

R = TypeVar("R")

TARGET_CNN = "TargetCNN"

_WIDTHS = {
    "50k": (60, 40),
    "400k": (400, 200),
    "4M": (2000, 1200),
    "10M": (3100, 2430),
    "40M": (5950, 5900),
    "100M": (9610, 9605),
}
"""Hidden layers of MLPs on 28×28 images, by approximate number of weights."""

SIZES = ("50k", "400k", "4M", "40M")


_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Times(NamedTuple):
    """Durations of repeated calls [ms]."""

    median: float
    least: float
    most: float


class Operations(TorchDispatchMode):
    """Counts what PyTorch dispatches on tensors without values (`FakeTensorMode`), backward passes included.

    Attributes:
        total: operations.
        waits: operations for which the host of a GPU waits: values that it asks for, and copies from memory to memory
            that are not asynchronous.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count an operation. A value that the host asks for is 0."""
        self.total += func.namespace != "prim"  # those ask for a device or a layout
        from_device = any(isinstance(part, Tensor) and part.device.type != "cpu" for part in args)
        if from_device and torch.Tag.data_dependent_output in func.tags:
            self.waits += 1
            return 0
        result = func(*args, **(kwargs or {}))
        if func in _COPIES:
            source, *asynchronous = args[1:] if func is torch.ops.aten.copy_.default else args
            asynchronous = asynchronous or [(kwargs or {}).get("non_blocking", False)]
            self.waits += source.device != result.device and not asynchronous[0]
        return result


def in_fresh_process(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a new process, so that its peak memory is measured alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory() -> float:
    """Peak resident memory of this process, memory-mapped files included [MB].

    On Linux, `ru_maxrss` is inherited from the parent process, so VmHWM is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 1024)


def timed(work: Callable[[], Any], calls: int) -> Times:
    """Call a function repeatedly, after one call to warm up."""
    work()
    durations = [duration(work) for _ in range(calls)]
    return Times(statistics.median(durations), min(durations), max(durations))


def duration(work: Callable[[], Any]) -> float:
    """Duration of one call [ms]."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def network(size: str) -> torch.nn.Module:
    """TargetCNN on 28×28 images, or an MLP of about this size."""
    return get_target_model("TargetCNN") if size == TARGET_CNN else get_target_model("MLP", widths=_WIDTHS[size])


def layout_of(size: str) -> Layout:
    """The layout of `network(size)`; allocates no weights."""
    with torch.device("meta"):
        return Layout.of(network(size))


def publish(title: str, rows: Sequence[Mapping[str, Any]], output: Path | None) -> None:
    """Print rows as an aligned table, and write them as JSON if `output` is given."""
    heads = list(rows[0])
    cells = [heads, *([_text(row[head]) for head in heads] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    click.echo(f"{title}; {os.cpu_count()} cores, torch {torch.__version__}")
    for line in cells:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if output is not None:
        facts = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
        output.write_text(json.dumps({"title": title, **facts, "rows": list(rows)}, indent=1) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
