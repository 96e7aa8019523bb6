"""Validation of online meta-training: paired inner trainings with and without nowcasts."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy
from ..tasks import Batch
from .inner_loop import InnerTrainings
from .mixture import MixtureComponent, start_trainings

_EXAMPLES = 512


@torch.no_grad()
def paired_speedup(
    optimizer: GenerativeOptimizer, component: MixtureComponent, steps: int, policy: NowcastPolicy, seed: int
) -> dict[str, float]:
    """Measure the speed-up of guarded nowcasts over Adam alone, as a quick check during meta-training.

    Both inner trainings of a pair have the same initial weights, batches and learning rate. `metaopt evaluate` is more
    accurate and has more baselines.

    Args:
        steps: length of each training [steps].
        policy: decides about nowcasts; the validation loss is measured every `policy.stride` steps.
        seed: random seed of the trainings and of the examples.
    Returns:
        speedup: steps of Adam to its best loss / steps of the EMA with nowcasts to that loss, geometric mean over rows.
        average_speedup: the same for the EMA of Adam alone.
        final_log_ratio: logarithm of the final loss of the EMA with nowcasts / that of the EMA of Adam alone.
        kept: share of accepted nowcasts.

        Empty if every pair diverged.
    """
    problem = component.problem
    decay = optimizer.averaging
    alone, nowcast = (start_trainings(component, policy, optimizer.history, decay, seed) for _ in range(2))
    guard, validation = (problem.sample(split, _EXAMPLES, generator(seed)) for split in ("guard", "validation"))
    curves: list[list[Tensor]] = [[], [], []]
    accepted_shares: list[float] = []
    offset = torch.zeros_like(nowcast.averaged)  # of the EMA, from accepted forecasts that the weights did not follow
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
    adam, ema, nowcasts = (torch.stack(curve) for curve in curves)
    valid = ~(alone.diverged | nowcast.diverged)
    if not valid.any():
        return {}
    target = adam.min(0).values
    adam_log, ema_log, nowcast_log = (_first_reached(each, target)[valid].log() for each in (adam, ema, nowcasts))
    return {
        "speedup": float((adam_log - nowcast_log).mean().exp()),
        "average_speedup": float((adam_log - ema_log).mean().exp()),
        "final_log_ratio": float((nowcasts[-1] / ema[-1]).log()[valid].mean()),
        "kept": sum(accepted_shares) / max(len(accepted_shares), 1),
    }


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
    forecasts = [
        optimizer.predict(history, times, times[:, -1] + horizon, problem.layout)
        for horizon in policy.proposed(trainings.step)
    ]
    losses = torch.stack([problem.example_losses(each, guard) for each in forecasts])
    best, accepted = policy.choose(problem.example_losses(averaged, guard), losses)
    accepted = accepted & ~trainings.diverged
    chosen = torch.stack(forecasts)[best, torch.arange(len(best), device=best.device)]
    change = torch.where(accepted.unsqueeze(1), chosen - averaged, 0.0)
    followed = trainings.follow(accepted, change, guard)
    return float(accepted.float().mean()), torch.where(followed.unsqueeze(1), 0.0, change)


def _first_reached(losses: Float[Tensor, "points rows"], target: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The number of the first loss at or below the target, from 1; one more than there are if none is."""
    reached = losses <= target
    return torch.where(reached.any(0), reached.float().argmax(0), len(losses)) + 1.0
