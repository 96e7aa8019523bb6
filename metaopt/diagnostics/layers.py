"""Predicted and true changes of the weights, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..generative.base import GenerativeOptimizer
from ..generative.extrapolation import Line
from ..weights.layout import Layout
from .probed_run import ProbedRun

_MOST_ROWS = 16  # that are legible in one figure
_SQUARED_ZERO = 1e-30


@dataclass(frozen=True)
class Layers:
    """Agreement of the predicted change of the weights with the change of the hold run in the same time.

    Attributes:
        names: tensors, or groups of neighbouring ones where there are many.
        starts: steps from which the predictions start.
        horizon: horizon of the predictions [steps].
        cosine: of the angle between the two changes: 1 is the same direction. NaN where one is zero.
        ratio: length of the predicted change / of the true one.
        line_cosine, line_ratio: the same for the line.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    horizon: int
    cosine: Float[np.ndarray, "starts names"]
    ratio: Float[np.ndarray, "starts names"]
    line_cosine: Float[np.ndarray, "starts names"]
    line_ratio: Float[np.ndarray, "starts names"]


def layers(run: ProbedRun, optimizer: GenerativeOptimizer) -> Layers:
    """Compare predicted with true changes for each layer and several starts."""
    starts = run.starts()
    names, group_of_tensor = groups(run.layout)
    ours = [_agreement(run, optimizer, start, group_of_tensor) for start in starts]
    lines = [_agreement(run, Line(), start, group_of_tensor) for start in starts]
    cosine, ratio = (np.stack(each) for each in zip(*ours, strict=True))
    line_cosine, line_ratio = (np.stack(each) for each in zip(*lines, strict=True))
    return Layers(names, tuple(starts), run.horizon, cosine, ratio, line_cosine, line_ratio)


def groups(layout: Layout, most: int = _MOST_ROWS) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of at most `most` groups of neighbouring tensors, and the group number of each tensor.

    Groups are as small as possible: tensors, else modules, else modules of modules, else equal numbers of tensors.
    """
    names = [tensor.name for tensor in layout.tensors]
    for depth in range(max(name.count(".") for name in names) + 1, 0, -1):
        prefixes = [".".join(name.split(".")[:depth]) for name in names]
        found = [(name, len(list(members))) for name, members in groupby(prefixes)]
        if len(found) <= most:
            return _numbered(found)
    per_group = -(-len(names) // most)
    parts = [names[start : start + per_group] for start in range(0, len(names), per_group)]
    return _numbered([(f"{part[0]} … {part[-1]}" if len(part) > 1 else part[0], len(part)) for part in parts])


def sums_by_group(values: Float[Tensor, " tensors"], group_of_tensor: Sequence[int]) -> Float[Tensor, " groups"]:
    """The sum of one value per tensor over each group."""
    sums = torch.zeros(max(group_of_tensor) + 1, dtype=torch.float64)
    return sums.index_add_(0, torch.tensor(group_of_tensor), values.double())


def _numbered(found: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    numbers = [number for number, (_, size) in enumerate(found) for _ in range(size)]
    return tuple(_shortened([name for name, _ in found])), tuple(numbers)


def _shortened(names: Sequence[str], longest: int = 30) -> list[str]:
    """Names that fit beside rows: without a module that all share, and without the middle of long names."""
    first = names[0].partition(".")[0] + "."
    inner = [name.removeprefix(first) for name in names]
    if all(name.startswith(first) for name in names) and not any(name[0].isdigit() for name in inner):
        return _shortened(inner, longest)
    return [name if len(name) <= longest else f"{name[:6]}…{name[7 - longest :]}" for name in names]


def _agreement(
    run: ProbedRun, optimizer: GenerativeOptimizer, start: int, group_of_tensor: Sequence[int]
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Cosine and ratio of lengths of the predicted and the true change, by group."""
    before = run.snapshots[start]
    predicted = run.layout.split(run.predict(optimizer, start, run.horizon) - before)
    true = run.layout.split(run.snapshots[start + run.horizon] - before)
    products = [torch.stack([p @ t, p @ p, t @ t]) for p, t in zip(predicted, true, strict=True)]
    inner, ours, truth = (sums_by_group(each, group_of_tensor) for each in torch.stack(products).T)
    known = (ours > _SQUARED_ZERO) & (truth > _SQUARED_ZERO)
    cosine = torch.where(known, inner / (ours * truth).sqrt(), torch.nan)
    return cosine.numpy(), torch.where(truth > _SQUARED_ZERO, (ours / truth).sqrt(), torch.nan).numpy()
