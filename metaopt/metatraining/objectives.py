"""What a generative optimizer is trained for: weights like the recorded ones, or networks with a low loss."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..tasks import Batch
from ..trajectories.dataset import WeightPair
from ..weights.layout import Layout
from .problem import InnerProblem

_FLOOR = 0.01
"""Share of the task's baseline loss below which a lower loss hardly counts: else near-zero losses rule the mean."""

_STILL = 1e-12
"""Squared movement of a tensor, relative to its size, below which it stands still: rounding of float32."""


class Shares(NamedTuple):
    """How much each part counts in an objective."""

    error: float
    task: float


OBJECTIVES: Mapping[str, Shares] = {
    "weights": Shares(error=1.0, task=0.0),
    "task": Shares(error=0.0, task=1.0),
    "mix": Shares(error=0.3, task=1.0),
}


class Judged(NamedTuple):
    """How good predictions are, pair by pair; lower is better everywhere."""

    objective: Float[Tensor, " batch"]
    relative_error: Float[Tensor, " batch"]
    log_loss_change: Float[Tensor, " batch"] | None


def judge_predictions(
    predicted: Float[Tensor, "batch weights"],
    pairs: WeightPair,
    layout: Layout,
    shares: Shares,
    problem: InnerProblem | None,
    examples: Batch | None,
) -> Judged:
    """Judge predicted weights against the recorded ones and, where the problem is given, by their loss.

    Args:
        pairs: a batch of pairs; every field has a batch dimension in front.
        shares: what counts how much in the objective.
        problem: measures losses; None where only weights count.
        examples: what it measures them on, held out from inner training.
    """
    error = relative_error(predicted, pairs.end, pairs.start, layout)
    if problem is None or examples is None:
        return Judged(shares.error * error, error, None)
    change = log_loss_change(predicted, pairs.start, problem, examples)
    return Judged(shares.error * error + shares.task * change, error, change)


def relative_error(
    predicted: Float[Tensor, "batch weights"],
    end: Float[Tensor, "batch weights"],
    start: Float[Tensor, "batch weights"],
    layout: Layout,
) -> Float[Tensor, " batch"]:
    """Squared error relative to that of copying W_t, the mean over tensors: 1 is as good as doing nothing.

    Tensors that did not move, such as those of an unused layer, do not count: copying is already right there.
    """
    sums, moved = torch.zeros(len(predicted)), torch.zeros(len(predicted))
    for ours, true, copied in zip(layout.split(predicted), layout.split(end), layout.split(start), strict=True):
        copying = (copied - true).square().sum(-1)
        counts = copying > _STILL * true.square().sum(-1)
        ratio = (ours - true).square().sum(-1) / torch.where(counts, copying, 1)
        sums, moved = sums + torch.where(counts, ratio, 0), moved + counts
    return sums / moved.clamp(min=1)


def log_loss_change(
    predicted: Float[Tensor, "batch weights"],
    start: Float[Tensor, "batch weights"],
    problem: InnerProblem,
    examples: Batch,
) -> Float[Tensor, " batch"]:
    """Logarithm of the predicted network's loss over that of W_t."""
    with torch.no_grad():
        before = log_loss(problem, start, examples)
    return log_loss(problem, predicted, examples) - before


def log_loss(
    problem: InnerProblem, weights: Float[Tensor, "batch weights"], examples: Batch
) -> Float[Tensor, " batch"]:
    """Logarithm of each network's loss, raised by a hundredth of the baseline loss."""
    return torch.log(problem.losses(weights, examples) + _FLOOR * problem.task.baseline_loss)
