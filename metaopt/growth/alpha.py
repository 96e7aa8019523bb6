"""How α, the share of a growth seed in the output of its tap, rises from 0 to 1."""

import math
from collections.abc import Callable, Mapping

from ..core.errors import InvalidConfig
from ..core.registry import suggest
from ..core.text import shown

_STEEPNESS = 12.0  # the slope of the sigmoid at its middle is a quarter of it

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 * (1 - math.cos(math.pi * share)),
    # Normalised, because a sigmoid by itself never reaches 0 or 1.
    "sigmoid": lambda share: 0.5 + 0.5 * math.tanh(_STEEPNESS * (share - 0.5) / 2) / math.tanh(_STEEPNESS / 4),
}
"""α as a function of the share of the steps that are done, by name; each is 0 at 0, 1 at 1, and never falls."""


def alpha(schedule: str, step: int, steps: int) -> float:
    """α after a step of blending.

        from metaopt.growth.alpha import alpha

        assert [alpha("linear", step, 4) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    Args:
        schedule: a name in `SCHEDULES`.
        step: steps since blending began [steps].
        steps: duration of blending [steps].
    Raises:
        InvalidConfig: there is no such schedule, or the duration is below 1.
    """
    if schedule not in SCHEDULES:
        raise InvalidConfig(f"the schedule of alpha is {shown(schedule)}: {suggest(schedule, SCHEDULES)}")
    if steps < 1:
        raise InvalidConfig(f"blending takes {steps} steps; expected 1 or more")
    return SCHEDULES[schedule](min(max(step / steps, 0.0), 1.0))
