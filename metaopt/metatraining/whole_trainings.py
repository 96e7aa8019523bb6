"""Whole inner trainings with nowcasts, as in use: the best accepted forecast is applied every few steps."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.rng import generator
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy
from ..tasks import Batch, Split
from .inner_loop import InnerTrainings
from .mixture import MixtureComponent, start_trainings

EXAMPLES = 512
"""Examples on which the guard, and the losses of whole trainings, are measured [count]."""


class WholeTrainings(NamedTuple):
    """The results of trainings with nowcasts.

    Attributes:
        losses: of the EMA of the weights, with the accepted forecasts, every `policy.stride` steps.
        diverged: whether each training diverged.
        kept: share of accepted nowcasts.
    """

    losses: Float[Tensor, "points rows"]
    diverged: Bool[Tensor, " rows"]
    kept: float


@torch.no_grad()
def train_with_nowcasts(
    optimizer: GenerativeOptimizer,
    component: MixtureComponent,
    steps: int,
    policy: NowcastPolicy,
    seed: int,
    split: Split = "validation",
) -> WholeTrainings:
    """Train the networks of a component from their first step to their last.

    Args:
        steps: length of each training [steps].
        policy: decides about nowcasts; a loss is measured every `policy.stride` steps.
        seed: random seed of the trainings and of the examples.
        split: of the examples on which losses are measured.
    """
    problem, decay = component.problem, optimizer.averaging
    trainings = start_trainings(component, policy, optimizer.history, decay, seed)
    guard, measured = (problem.sample(name, EXAMPLES, generator(seed)) for name in ("guard", split))
    losses: list[Tensor] = []
    accepted: list[float] = []
    offset = torch.zeros_like(trainings.averaged)  # of the EMA, from forecasts that the weights did not follow
    for step in range(policy.stride, steps + 1, policy.stride):
        with torch.enable_grad():
            trainings.advance(policy.stride)
        offset *= decay**policy.stride
        if policy.nowcast_due(step) and step < steps:
            share, offset = apply_nowcast(optimizer, trainings, policy, guard)
            accepted.append(share)
        losses.append(problem.losses(trainings.averaged + offset, measured))
    return WholeTrainings(torch.stack(losses), trainings.diverged, sum(accepted) / max(len(accepted), 1))


def apply_nowcast(
    optimizer: GenerativeOptimizer, trainings: InnerTrainings, policy: NowcastPolicy, guard: Batch
) -> tuple[float, Float[Tensor, "rows weights"]]:
    """Apply the best accepted forecast to each training.

    Args:
        guard: the guard's examples.
    Returns: the share of trainings with an accepted forecast, and the change of the EMA where the weights did not
        follow.
    """
    history, times = trainings.history()
    problem, averaged = trainings.problem, trainings.averaged
    horizons = times.new_tensor(policy.proposed(trainings.step))
    forecasts = optimizer.predict_horizons(history, times, times[:, -1] + horizons.unsqueeze(1), problem.layout)
    losses = torch.stack([problem.example_losses(each, guard) for each in forecasts])
    best, accepted = policy.choose(problem.example_losses(averaged, guard), losses)
    accepted = accepted & ~trainings.diverged
    chosen = forecasts[best, torch.arange(len(best), device=best.device)]
    change = torch.where(accepted.unsqueeze(1), chosen - averaged, 0.0)
    followed = trainings.follow(accepted, change, guard)
    return float(accepted.float().mean()), torch.where(followed.unsqueeze(1), 0.0, change)
