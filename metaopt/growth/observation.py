"""What a controller sees: 23 numbers about the losses, the network and the slot in focus. No accuracy."""

import math

from .growth import Growth
from .stages import Stage

_STAGES = (
    Stage.DORMANT,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.SHADOWING,
    Stage.PROBATIONARY,
    Stage.EMBARGOED,
)
BOUND = 10.0
"""Largest absolute value of a number that a controller sees."""

_LAG = 5  # decisions

NAMES = (
    "share of the steps done",
    "loss over the first loss",
    "training loss over the first loss",
    "best loss over the first loss",
    "change of the loss over sigma",
    f"change of the loss over sigma, {_LAG} decisions",
    "decisions since the best loss, in tens",
    "loss minus training loss, over the first loss",
    "log of the last loss over the first loss",
    "log of the weights over the host's",
    "share of slots that are fossilized",
    "share of slots that are dormant",
    *(f"the slot in focus is {stage}" for stage in _STAGES),
    "decisions in this stage, in tens",
    "alpha",
    "gain of the seed over sigma",
    "weights of the seed over the host's",
    "seeds removed so far, in fives",
)
"""What each number is, in order."""


def observe(growth: Growth, total_steps: int, train_loss: float, sigma: float) -> list[float]:
    """The observation of a controller, each number between −10 and 10.

    Args:
        growth: has measured its losses at this step.
        total_steps: steps of the whole training [steps].
        train_loss: mean training loss since the last decision.
        sigma: standard deviation of the change of the training loss from one step to the next, so far; `task.json` of a
            recorded training has that of all its steps.
    """
    losses, slot = growth.losses, growth.focus
    first, last = losses[0], losses[-1]
    scale = max(sigma, 1e-8)
    best = min(range(len(losses)), key=losses.__getitem__)
    lagged = losses[-1 - min(_LAG, len(losses) - 1)]
    stages = [each.stage for each in growth.slots.values()]
    stage = Stage.TRAINING if slot is not None and slot.stage is Stage.GERMINATED else slot.stage if slot else None
    numbers = [
        growth.step / max(total_steps, 1),
        last / first,
        train_loss / first,
        losses[best] / first,
        (last - losses[-2]) / scale if len(losses) > 1 else 0.0,
        (last - lagged) / scale,
        (len(losses) - 1 - best) / 10,
        (last - train_loss) / first,
        math.log(max(last, 1e-12) / max(first, 1e-12)),
        math.log1p(growth.seed_weights / growth.host_weights),
        stages.count(Stage.FOSSILIZED) / len(stages),
        stages.count(Stage.DORMANT) / len(stages),
        *(float(stage is each) for each in _STAGES),
        (growth.step - slot.since) / growth.config.interval / 10 if slot is not None else 0.0,
        growth.alpha_of(slot) if slot is not None else 0.0,
        (slot.gain or 0.0) / scale if slot is not None else 0.0,
        growth.weights_of(slot) / growth.host_weights if slot is not None else 0.0,
        sum(each.culled for each in growth.slots.values()) / 5,
    ]
    return [_bounded(number) for number in numbers]


def _bounded(number: float) -> float:
    return max(-BOUND, min(BOUND, number)) if math.isfinite(number) else BOUND
