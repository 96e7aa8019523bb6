"""Objectives of meta-training: the error of predicted weights, and the loss of the predicted networks."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..tasks import Batch
from ..trajectories.dataset import WeightPair
from ..weights.layout import Layout
from .problem import InnerProblem

LOSS_OFFSET = 0.01
"""Added to a loss before the logarithm, as a share of the baseline loss: else losses near zero dominate the mean."""

_UNCHANGED = 1e-12
"""Squared change of a tensor, relative to its squared norm, up to which it is rounding error of float32."""


class Coefficients(NamedTuple):
    """Coefficients of the two terms of an objective."""

    error: float
    task: float


OBJECTIVES: Mapping[str, Coefficients] = {
    "weights": Coefficients(error=1.0, task=0.0),
    "task": Coefficients(error=0.0, task=1.0),
    "mix": Coefficients(error=0.3, task=1.0),
}


class PredictionScores(NamedTuple):
    """Scores of predictions, one per pair; lower is better."""

    objective: Float[Tensor, " batch"]
    relative_error: Float[Tensor, " batch"]
    log_loss_change: Float[Tensor, " batch"] | None


def score_predictions(
    predicted: Float[Tensor, "batch weights"],
    pairs: WeightPair,
    layout: Layout,
    coefficients: Coefficients,
    problem: InnerProblem | None,
    examples: Batch | None,
) -> PredictionScores:
    """Compare predicted weights with the recorded ones and, if a problem is given, by the loss of the network.

        objective = coefficients.error · relative_error + coefficients.task · log_loss_change

    Args:
        pairs: a batch of pairs; every field has a leading batch dimension.
        problem: measures the loss; None for an objective of the weights alone.
        examples: where it measures the loss; held out from inner training.
    """
    error = relative_error(predicted, pairs.end, pairs.start, layout)
    if problem is None or examples is None:
        return PredictionScores(coefficients.error * error, error, None)
    change = log_loss_change(predicted, pairs.start, problem, examples)
    return PredictionScores(coefficients.error * error + coefficients.task * change, error, change)


def relative_error(
    predicted: Float[Tensor, "batch weights"],
    end: Float[Tensor, "batch weights"],
    start: Float[Tensor, "batch weights"],
    layout: Layout,
) -> Float[Tensor, " batch"]:
    """Squared error of the prediction relative to that of W_t, averaged over the tensors k of the network.

        mean over k of ‖predicted_k − end_k‖² / ‖start_k − end_k‖²

    It is 0 for a perfect prediction and 1 for a copy of W_t. Tensors that did not change, such as those of an unused
    layer, are left out.
    """
    sums, changed = predicted.new_zeros(2, len(predicted)).unbind()
    for ours, true, copied in zip(layout.split(predicted), layout.split(end), layout.split(start), strict=True):
        copy_error = (copied - true).square().sum(-1)
        counts = copy_error > _UNCHANGED * true.square().sum(-1)
        ratio = (ours - true).square().sum(-1) / torch.where(counts, copy_error, 1)
        sums, changed = sums + torch.where(counts, ratio, 0), changed + counts
    return sums / changed.clamp(min=1)


def log_loss_change(
    predicted: Float[Tensor, "batch weights"],
    start: Float[Tensor, "batch weights"],
    problem: InnerProblem,
    examples: Batch,
) -> Float[Tensor, " batch"]:
    """Log-loss of the predicted network minus that of W_t; no gradient flows into W_t."""
    with torch.no_grad():
        before = log_loss(problem, start, examples)
    return log_loss(problem, predicted, examples) - before


def log_loss(
    problem: InnerProblem, weights: Float[Tensor, "batch weights"], examples: Batch
) -> Float[Tensor, " batch"]:
    """The logarithm log(loss + 0.01 · baseline loss) of each network."""
    return torch.log(problem.losses(weights, examples) + LOSS_OFFSET * problem.task.baseline_loss)
