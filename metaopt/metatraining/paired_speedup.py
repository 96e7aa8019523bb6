"""Validation of online meta-training: paired inner trainings with and without nowcasts."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy
from ..tasks import Batch
from .inner_loop import InnerTrainings
from .mixture import MixtureComponent, start

_EXAMPLES = 512


@torch.no_grad()
def paired_speedup(
    optimizer: GenerativeOptimizer, component: MixtureComponent, steps: int, policy: NowcastPolicy, seed: int
) -> dict[str, float]:
    """How much sooner guarded nowcasts reach the best loss of Adam alone: a quick check during meta-training.

    Both trainings have the same initial weights, batches and learning rates, drawn once. `metaopt evaluate` measures
    more carefully and with all baselines.

    Args:
        steps: budget of each training [steps].
        policy: of the nowcasts; the validation loss is measured every `policy.stride` steps.
    Returns: `speedup`, steps of Adam to its best loss over the steps of the running average with nowcasts, geometric
        mean over rows; `average_speedup`, the same for the running average of Adam alone; `final_log_ratio`, the
        logarithm of the final loss with nowcasts over that of Adam's average; `kept`, the share of accepted nowcasts.
    """
    problem = component.problem
    decay = optimizer.averaging
    alone, nowcast = (start(component, policy, optimizer.history, decay, seed) for _ in range(2))
    guard, validation = (problem.task.sample(split, _EXAMPLES, generator(seed)) for split in ("guard", "validation"))
    curves: list[list[Tensor]] = [[], [], []]
    accepted_shares: list[float] = []
    offset = torch.zeros_like(nowcast.averaged)  # of the average in use where the weights have not followed
    for step in range(policy.stride, steps + 1, policy.stride):
        for trainings in (alone, nowcast):
            with torch.enable_grad():
                trainings.advance(policy.stride)
        offset *= decay**policy.stride
        if policy.nowcast_due(step) and step < steps:
            share, offset = apply_nowcast(optimizer, nowcast, policy, guard)
            accepted_shares.append(share)
        for weights, curve in zip((alone.weights, alone.averaged, nowcast.averaged + offset), curves, strict=True):
            curve.append(problem.losses(weights, validation))
    adam, average, ours = (torch.stack(curve) for curve in curves)
    sound = ~(alone.diverged | nowcast.diverged)
    if not sound.any():
        return {}
    target = adam.min(0).values
    adam_steps, average_steps, our_steps = (_first_reached(each, target)[sound].log() for each in (adam, average, ours))
    return {
        "speedup": float((adam_steps - our_steps).mean().exp()),
        "average_speedup": float((adam_steps - average_steps).mean().exp()),
        "final_log_ratio": float((ours[-1] / average[-1]).log()[sound].mean()),
        "kept": sum(accepted_shares) / max(len(accepted_shares), 1),
    }


def apply_nowcast(
    optimizer: GenerativeOptimizer, trainings: InnerTrainings, policy: NowcastPolicy, guard: Batch
) -> tuple[float, Float[Tensor, "rows weights"]]:
    """Propose all horizons to every training; each takes its best one where the policy accepts it.

    Returns: the share of trainings that accepted; the offset of the average in use where the weights did not follow.
    """
    history, times = trainings.past()
    problem, averaged = trainings.problem, trainings.averaged
    forecasts = [
        optimizer.predict(history, times, times[:, -1] + horizon, problem.layout)
        for horizon in policy.proposed(trainings.step)
    ]
    losses = torch.stack([problem.example_losses(each, guard) for each in forecasts])
    best, accepted = policy.choose(problem.example_losses(averaged, guard), losses)
    accepted = accepted & ~trainings.diverged
    chosen = torch.stack(forecasts)[best, torch.arange(len(best))]
    change = torch.where(accepted.unsqueeze(1), chosen - averaged, 0.0)
    followed = trainings.follow(accepted, change, guard)
    return float(accepted.float().mean()), torch.where(followed.unsqueeze(1), 0.0, change)


def _first_reached(losses: Float[Tensor, "points rows"], target: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The first measurement at or below the target, from 1; one after the last where there is none."""
    reached = losses <= target
    return torch.where(reached.any(0), reached.float().argmax(0), len(losses)) + 1.0
