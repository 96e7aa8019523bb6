"""Cost of recording during training: GPT of 10 million weights, a snapshot every 50 steps, against no recording.

Goal: at most 2 % of the time.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import torch
from torch import nn
from torch.nn import functional as F

from metaopt.targets import get_target_model
from metaopt.trajectories import Recorder
from metaopt.weights.layout import Layout

from ._measure import duration, in_fresh_process, publish, timed

_SHAPE = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 64}
_BATCH = 4
_WARM_UP = 5  # steps


class Block(NamedTuple):
    """Durations of a snapshot and of the training steps after it [ms]."""

    recording: float
    training: float

    @property
    def total(self) -> float:
        """Duration of both."""
        return self.recording + self.training


def measure(dtype: str, device: str, threads: int, every: int, pairs: int) -> dict[str, Any]:
    """Time blocks of a training, alternately with and without a snapshot before them, written in the background."""
    torch.set_num_threads(threads)
    model = get_target_model("GPT", **_SHAPE).to(device)
    layout, step = Layout.of(model), _training_step(model, device)
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder), {}, layout, dtype=dtype) as recorder:
        _time_block(recorder, partial(recorder.record, model, 0, 0, {}), step, _WARM_UP)
        blocks: list[dict[bool, Block]] = []
        for number in range(1, pairs + 1):
            record = partial(recorder.record, model, number, 0, {})
            turns: list[tuple[bool, Callable[[], Any]]] = [(True, record), (False, _nothing)]
            ordered = turns if number % 2 else turns[::-1]
            blocks.append({recorded: _time_block(recorder, first, step, every) for recorded, first in ordered})
        written = timed(partial(_record_and_wait, recorder, model), pairs)
    shares = [100 * pair[True].recording / pair[True].total for pair in blocks]
    slowdowns = [pair[True].total / pair[False].total for pair in blocks]
    return {
        "weights": layout.size,
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "pairs": pairs,
        "step ms": median(pair[False].total for pair in blocks) / every,
        "record() ms": median(pair[True].recording for pair in blocks),
        "until written ms": written.median,
        "% of the time": median(shares),
        "most %": max(shares),
        "slowdown": median(slowdowns),
        "least": min(slowdowns),
        "most": max(slowdowns),
    }


def _time_block(recorder: Recorder, first: Callable[[], Any], step: Callable[[], None], steps: int) -> Block:
    def train() -> None:
        for _ in range(steps):
            step()

    recorder.flush()
    return Block(duration(first), duration(train))


def _record_and_wait(recorder: Recorder, model: nn.Module) -> None:
    """Record a snapshot without training in the background: the upper bound of its cost."""
    recorder.record(model, 0, 0, {})
    recorder.flush()


def _nothing() -> None:
    """Before a block without a snapshot."""


def _training_step(model: nn.Module, device: str) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens = torch.randint(256, (_BATCH, _SHAPE["block_size"] + 1), device=device)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        loss.item()  # reading the loss synchronises with the device, as training loops do

    return step


@click.command()
@click.option("--dtypes", default="float32,bfloat16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--every", default=50, show_default=True, help="Steps between snapshots.")
@click.option("--pairs", default=3, show_default=True, help="Timed blocks with a snapshot, and as many without.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(dtypes: str, device: str, threads: int, every: int, pairs: int, output: Path | None) -> None:
    """Time a training with and without recording."""
    rows = [in_fresh_process(measure, dtype, device, threads, every, pairs) for dtype in dtypes.split(",")]
    publish(f"training GPT, a snapshot every {every} steps", rows, output)


if __name__ == "__main__":
    main()
