"""Does a continuum memory forget less? What a network forgets of a first text when it has learned a second one.

A language model without another memory is trained on one text and then reads another one once. Only its MLPs learn from
it. Three networks with equally many weights are compared: `levels`, a continuum memory whose levels are due every 1, 4
and 16 steps; `all`, the same network with all levels due at each step; and `one`, a single MLP. Each reads the text
once with each of several learning rates, since whoever learns less also forgets less.

Learned is by how much the loss on a held-out part of the second text falls, forgotten by how much that on a held-out
part of the first one rises. What is forgotten is compared where the networks have learned equally much: a share of what
all three learn at their best learning rate, with a line between two learning rates.

Known negative: levels forget at least 0.95 of what a network without levels forgets.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from metaopt.nested import Hope

from .._measure import publish
from .shifted_stream import loss_of, streamed, text_of, trained

GOAL = 0.95
BASELINES = ("all", "one")
SHARES = (0.5, 0.9)
_RATES = (2e-4, 6e-4, 2e-3, 6e-3)
_HELD_OUT = 16_000  # bytes of each text
_BLOCK = 64  # bytes
_NETWORKS: Mapping[str, tuple[bool, Sequence[int]]] = {  # whether it has a chain of MLPs, and the periods of its levels
    "levels": (True, (1, 4, 16)),
    "all": (True, (1, 1, 1)),
    "one": (False, (1, 1, 1)),
}


class Point(NamedTuple):
    """What a network has learned of the second text and forgotten of the first one [nats per byte]."""

    learned: float
    forgotten: float


def curve(model: Hope, first: Tensor, stream: Tensor, second: Tensor, periods: Sequence[int]) -> list[Point]:
    """What a model has learned and forgotten before a stream, and after it with each learning rate.

    Args:
        first, second: held-out parts of both texts.
    """
    before = [_held_out_loss(model, text) for text in (first, second)]
    points = [Point(0.0, 0.0)]
    for lr in _RATES:
        reader = streamed(model, stream, periods, lr).model
        after = [_held_out_loss(reader, text) for text in (first, second)]
        points.append(Point(before[1] - after[1], after[0] - before[0]))
    return points


def forgotten_at(points: Sequence[Point], learned: float) -> float:
    """What is forgotten by the lowest learning rate that learns this much, with a line between two learning rates."""
    for begin, end in pairwise(points):
        if begin.learned < learned <= end.learned:
            share = (learned - begin.learned) / (end.learned - begin.learned)
            return begin.forgotten + share * (end.forgotten - begin.forgotten)
    raise ValueError(f"no learning rate learns {learned:.3g}: {[point.learned for point in points]}")


def measure(first: Tensor, second: Tensor, steps: int, seed: int) -> dict[str, Any]:
    """What the networks of one random seed forget, at each share of what all of them learn."""
    texts = first[:-_HELD_OUT], first[-_HELD_OUT:], second[:-_HELD_OUT], second[-_HELD_OUT:]
    models = {cms: trained(texts[0], steps, seed, cms=cms) for cms in (True, False)}
    curves = {name: curve(models[cms], *texts[1:], periods) for name, (cms, periods) in _NETWORKS.items()}
    most = min(max(point.learned for point in points) for points in curves.values())
    row: dict[str, Any] = {"seed": seed, "learned": most}
    for share in SHARES:
        found = {name: forgotten_at(points, share * most) for name, points in curves.items()}
        row |= {f"{name} at {share}": value for name, value in found.items()}
        row |= {f"over {name} at {share}": found["levels"] / found[name] for name in BASELINES}
    return row


def _held_out_loss(model: Hope, text: Tensor) -> float:
    blocks = text[: len(text) // (_BLOCK + 1) * (_BLOCK + 1)].view(-1, _BLOCK + 1)
    with torch.no_grad():
        return loss_of(model, blocks).item()


@click.command()
@click.option("--first", type=click.Path(path_type=Path, exists=True), required=True, help="Text to train on.")
@click.option("--second", type=click.Path(path_type=Path, exists=True), required=True, help="Text to read afterwards.")
@click.option("--characters", default=76_000, show_default=True, help="Characters of the second text.")
@click.option("--steps", default=400, show_default=True, help="Training on the first text [steps].")
@click.option("--seeds", default=3, show_default=True, help="Random seeds [count].")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(first: Path, second: Path, characters: int, steps: int, seeds: int, output: Path | None) -> None:
    """Measure what levels forget, relative to networks without."""
    torch.set_num_threads(1)
    texts = text_of(first, 2_000_000), text_of(second, characters)
    rows = [measure(*texts, steps, seed) for seed in range(seeds)]
    publish(f"what is forgotten where equally much is learned of {characters:,} characters", rows, output)
    for name, share in product(BASELINES, SHARES):
        ratios = [row[f"over {name} at {share}"] for row in rows]
        click.echo(f"over {name} at {share}: {fmean(ratios):.3f} ± {stdev(ratios) if len(ratios) > 1 else 0:.3f}")


if __name__ == "__main__":
    main()
