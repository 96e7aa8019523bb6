"""Predicted and true change, layer by layer."""

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

_MOST = 16  # rows that can be read in one figure
_TINY = 1e-30


@dataclass(frozen=True)
class Layers:
    """How the change that is predicted compares with the change that the twin made in the same time.

    Attributes:
        names: tensors, or groups of neighbouring ones where there are many.
        starts: steps from which was predicted.
        reach: horizon [steps].
        cosine: of the angle between both changes: 1 is the same direction. Not a number where nothing changes.
        ratio: length of the predicted change / of the true one.
        line_cosine, line_ratio: the same for the line.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    reach: int
    cosine: Float[np.ndarray, "starts names"]
    ratio: Float[np.ndarray, "starts names"]
    line_cosine: Float[np.ndarray, "starts names"]
    line_ratio: Float[np.ndarray, "starts names"]


def layers(course: ProbedRun, optimizer: GenerativeOptimizer) -> Layers:
    """Compare predictions with what the twin did, for each layer and several starts."""
    starts = course.starts()
    names, owner = groups(course.layout)
    ours = [_agreement(course, optimizer, start, owner) for start in starts]
    lines = [_agreement(course, Line(), start, owner) for start in starts]
    cosine, ratio = (np.stack(each) for each in zip(*ours, strict=True))
    line_cosine, line_ratio = (np.stack(each) for each in zip(*lines, strict=True))
    return Layers(names, tuple(starts), course.reach, cosine, ratio, line_cosine, line_ratio)


def groups(layout: Layout, most: int = _MOST) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of at most so many groups of neighbouring tensors, and the number of the group that each tensor is in.

    Groups are as small as possible: tensors, else modules, else modules of modules; else runs of tensors.
    """
    names = [tensor.name for tensor in layout.tensors]
    for depth in range(max(name.count(".") for name in names) + 1, 0, -1):
        short = [".".join(name.split(".")[:depth]) for name in names]
        found = [(name, len(list(run))) for name, run in groupby(short)]
        if len(found) <= most:
            return _numbered(found)
    per_group = -(-len(names) // most)
    runs = [names[start : start + per_group] for start in range(0, len(names), per_group)]
    return _numbered([(f"{run[0]} … {run[-1]}" if len(run) > 1 else run[0], len(run)) for run in runs])


def sums_by_group(values: Sequence[Tensor] | Tensor, owner: Sequence[int]) -> Float[Tensor, " groups"]:
    """Add up a number per tensor for each group."""
    given = torch.as_tensor(values, dtype=torch.float64)
    return torch.zeros(max(owner) + 1, dtype=torch.float64).index_add_(0, torch.tensor(owner), given)


def _numbered(found: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    owner = [number for number, (_, size) in enumerate(found) for _ in range(size)]
    return tuple(_shortened([name for name, _ in found])), tuple(owner)


def _shortened(names: Sequence[str], longest: int = 30) -> list[str]:
    """Names that fit beside rows: without the module that all are in, and without their middle."""
    first = names[0].partition(".")[0] + "."
    inner = [name.removeprefix(first) for name in names]
    if all(name.startswith(first) for name in names) and not any(name[0].isdigit() for name in inner):
        return _shortened(inner, longest)
    return [name if len(name) <= longest else f"{name[:6]}…{name[7 - longest :]}" for name in names]


def _agreement(
    course: ProbedRun, optimizer: GenerativeOptimizer, start: int, owner: Sequence[int]
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    before = course.snapshots[start]
    predicted = course.layout.split(course.predicted(optimizer, start, course.reach) - before)
    true = course.layout.split(course.snapshots[start + course.reach] - before)
    products = [torch.stack([p @ t, p @ p, t @ t]) for p, t in zip(predicted, true, strict=True)]
    both, ours, truth = (sums_by_group(each, owner) for each in torch.stack(products).T)
    known = (ours > _TINY) & (truth > _TINY)
    cosine = torch.where(known, both / (ours * truth).sqrt(), torch.nan)
    return cosine.numpy(), torch.where(truth > _TINY, (ours / truth).sqrt(), torch.nan).numpy()
