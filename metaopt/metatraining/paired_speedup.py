"""Validation of online meta-training: paired inner trainings with and without nowcasts."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy
from .mixture import MixtureComponent, start_trainings
from .whole_trainings import EXAMPLES, train_with_nowcasts


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
    alone = start_trainings(component, policy, optimizer.history, optimizer.averaging, seed)
    validation = problem.sample("validation", EXAMPLES, generator(seed))
    curves: list[list[Tensor]] = [[], []]
    for _ in range(policy.stride, steps + 1, policy.stride):
        with torch.enable_grad():
            alone.advance(policy.stride)
        for weights, curve in zip((alone.weights, alone.averaged), curves, strict=True):
            curve.append(problem.losses(weights, validation))
    adam, ema = (torch.stack(curve) for curve in curves)
    nowcasts, diverged, kept = train_with_nowcasts(optimizer, component, steps, policy, seed)
    valid = ~(alone.diverged | diverged)
    if not valid.any():
        return {}
    target = adam.min(0).values
    adam_log, ema_log, nowcast_log = (_first_reached(each, target)[valid].log() for each in (adam, ema, nowcasts))
    return {
        "speedup": float((adam_log - nowcast_log).mean().exp()),
        "average_speedup": float((adam_log - ema_log).mean().exp()),
        "final_log_ratio": float((nowcasts[-1] / ema[-1]).log()[valid].mean()),
        "kept": kept,
    }


def _first_reached(losses: Float[Tensor, "points rows"], target: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The number of the first loss at or below the target, from 1; one more than there are if none is."""
    reached = losses <= target
    return torch.where(reached.any(0), reached.float().argmax(0), len(losses)) + 1.0
