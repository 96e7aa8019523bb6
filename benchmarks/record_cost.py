"""What recording costs a training: GPT of 10 million weights, a snapshot every 50 steps, beside no recording.

Goal: 2 % of the time or less.
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


class Piece(NamedTuple):
    """Some steps of a training, and the snapshot before them [ms]."""

    recording: float
    training: float

    @property
    def total(self) -> float:
        """What both take together."""
        return self.recording + self.training


def measure(dtype: str, device: str, threads: int, every: int, pairs: int) -> dict[str, Any]:
    """Time pieces of a training, by turns with a snapshot before them, which is written meanwhile, and without."""
    torch.set_num_threads(threads)
    model = get_target_model("GPT", **_SHAPE).to(device)
    layout, step = Layout.of(model), _training_step(model, device)
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder), {}, layout, dtype=dtype) as recorder:
        _time_piece(recorder, partial(recorder.record, model, 0, 0, {}), step, _WARM_UP)
        pieces: list[dict[bool, Piece]] = []
        for number in range(1, pairs + 1):
            record = partial(recorder.record, model, number, 0, {})
            turns: list[tuple[bool, Callable[[], Any]]] = [(True, record), (False, _nothing)]
            ordered = turns if number % 2 else turns[::-1]
            pieces.append({recorded: _time_piece(recorder, first, step, every) for recorded, first in ordered})
        written = timed(partial(_record_and_wait, recorder, model), pairs)
    shares = [100 * pair[True].recording / pair[True].total for pair in pieces]
    slowdowns = [pair[True].total / pair[False].total for pair in pieces]
    return {
        "weights": layout.size,
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "pairs": pairs,
        "step ms": median(pair[False].total for pair in pieces) / every,
        "record() ms": median(pair[True].recording for pair in pieces),
        "until written ms": written.median,
        "% of the time": median(shares),
        "most %": max(shares),
        "slowdown": median(slowdowns),
        "least": min(slowdowns),
        "most": max(slowdowns),
    }


def _time_piece(recorder: Recorder, first: Callable[[], Any], step: Callable[[], None], steps: int) -> Piece:
    def train() -> None:
        for _ in range(steps):
            step()

    recorder.flush()
    return Piece(duration(first), duration(train))


def _record_and_wait(recorder: Recorder, model: nn.Module) -> None:
    """What a snapshot costs where no training goes on meanwhile: at most so much is lost."""
    recorder.record(model, 0, 0, {})
    recorder.flush()


def _nothing() -> None:
    """What is done before a piece that is not recorded."""


def _training_step(model: nn.Module, device: str) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens = torch.randint(256, (_BATCH, _SHAPE["block_size"] + 1), device=device)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        loss.item()  # a training looks at its loss, and so waits for the device

    return step


@click.command()
@click.option("--dtypes", default="float32,bfloat16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--every", default=50, show_default=True, help="Steps between snapshots.")
@click.option(
    "--pairs", default=3, show_default=True, help="Pieces with a snapshot that are timed, and as many without."
)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(dtypes: str, device: str, threads: int, every: int, pairs: int, output: Path | None) -> None:
    """Time a training with and without recording."""
    rows = [in_fresh_process(measure, dtype, device, threads, every, pairs) for dtype in dtypes.split(",")]
    publish(f"training GPT, a snapshot every {every} steps", rows, output)


if __name__ == "__main__":
    main()
