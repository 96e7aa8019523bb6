"""Twins side by side: trainings with and without nowcasts, from the same weights, on the same batches."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator
from ..generative import GenerativeOptimizer
from ..nowcast.policy import STRAIGHT, usual_horizons, within_reach
from ..tasks import Batch
from .inner_loop import InnerTrainings
from .mixture import MixtureComponent, start

_EXAMPLES = 512


@torch.no_grad()
def paired_speedup(
    optimizer: GenerativeOptimizer,
    component: MixtureComponent,
    steps: int,
    every: int,
    stride: int,
    seed: int,
    horizons: Sequence[int] = (),
    straight: float = STRAIGHT,
) -> dict[str, float]:
    """How much sooner guarded nowcasts reach what Adam alone reaches: a quick look while meta-training goes on.

    `metaopt evaluate` is what judges; this is one random draw of learning rates, without the other baselines.

    Args:
        steps: budget [steps].
        every: steps from one nowcast to the next [steps].
        stride: steps between snapshots, and between looks at the validation loss [steps].
        horizons: how far ahead nowcasts look, of which the guard keeps the best; the usual ones unless given [steps].
        straight: how straight a training must go for its weights to follow, a cosine [1].
    Returns: `speedup`, Adam's steps to its best loss over those of the running average of ours, geometric mean;
        `average_speedup`, the same for Adam's own running average; `final_log_ratio`, the logarithm of our average's
        loss at the end over that of Adam's; `kept`, the share of nowcasts that the guard kept.
    """
    problem = component.problem
    decay = optimizer.averaging
    alone, nowcast = (start(component, stride, optimizer.history, decay, seed) for _ in range(2))
    guard, shown = (problem.task.sample(split, _EXAMPLES, generator(seed)) for split in ("guard", "validation"))
    curves: list[list[Tensor]] = [[], [], []]
    taken: list[float] = []
    proposed = horizons or usual_horizons(every, stride)
    lead = torch.zeros_like(nowcast.averaged)  # of the average in use where the weights have not followed
    for step in range(stride, steps + 1, stride):
        for trainings in (alone, nowcast):
            with torch.enable_grad():
                trainings.advance(stride)
        lead *= decay**stride
        if step % every == 0 and step < steps:
            kept, lead = _nowcast(optimizer, nowcast, within_reach(proposed, step), guard, straight)
            taken.append(kept)
        for weights, curve in zip((alone.weights, alone.averaged, nowcast.averaged + lead), curves, strict=True):
            curve.append(problem.losses(weights, shown))
    theirs, averages, ours = (torch.stack(curve) for curve in curves)
    sound = ~(alone.diverged | nowcast.diverged)
    if not sound.any():
        return {}
    target = theirs.min(0).values
    arrival, average_arrival, our_arrival = (
        _steps_to_target(losses, target)[sound].log() for losses in (theirs, averages, ours)
    )
    return {
        "speedup": float((arrival - our_arrival).mean().exp()),
        "average_speedup": float((arrival - average_arrival).mean().exp()),
        "final_log_ratio": float((ours[-1] / averages[-1]).log()[sound].mean()),
        "kept": sum(taken) / max(len(taken), 1),
    }


def _nowcast(
    optimizer: GenerativeOptimizer, trainings: InnerTrainings, horizons: Sequence[int], guard: Batch, straight: float
) -> tuple[float, Float[Tensor, "rows weights"]]:
    """Move those whose losses do not rise, each by its best proposal.

    Returns: the share whose average is better off; what the average in use has on itself where the weights are not.
    """
    history, times = trainings.past()
    problem, best = trainings.problem, trainings.averaged
    lowest = problem.losses(best, guard)
    better = torch.zeros_like(trainings.diverged)
    for horizon in horizons:
        predicted = optimizer.predict(history, times, times[:, -1] + horizon, problem.layout)
        losses = problem.losses(predicted, guard)
        lower = (losses <= lowest) & ~trainings.diverged
        best = torch.where(lower.unsqueeze(1), predicted, best)
        lowest, better = torch.where(lower, losses, lowest), better | lower
    change = best - trainings.averaged
    followed = trainings.follow(better, change, guard, straight)
    return float(better.float().mean()), torch.where(followed.unsqueeze(1), 0.0, change)


def _steps_to_target(losses: Float[Tensor, "looks rows"], target: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The first look at or below the target, from 1; one after the last where there is none."""
    there = losses <= target
    return torch.where(there.any(0), there.float().argmax(0), len(losses)) + 1.0
