"""Whether nowcasts pay: an estimate of the steps that they save, and of the time that they take."""

from collections.abc import Sequence

from ..core.text import counted
from .costs import NowcastCost
from .policy import NowcastEvent

WINDOW = 10
"""Nowcasts after which, and over which, it is asked whether they pay [count]."""


def steps_saved(events: Sequence[NowcastEvent]) -> float:
    """An estimate of the training steps that the accepted ones of some nowcasts have saved [steps].

    A nowcast that lowers the guard's loss by d saves the steps in which training lowers it by d. The rate of the
    training is that between the first and the last of these nowcasts, with their gains. No nowcast saves more steps
    than its horizon, which also holds where the loss does not fall.
    """
    measured = [event for event in events if event.loss_before is not None]
    if len(measured) < 2:
        return 0.0
    first, last = measured[0], measured[-1]
    assert first.loss_before is not None
    assert last.loss_before is not None
    rate = (first.loss_before - last.loss_before) / max(last.step - first.step, 1)
    return sum(_saved(event, rate) for event in measured if event.accepted)


def why_it_does_not_pay(
    events: Sequence[NowcastEvent], costs: Sequence[NowcastCost], seconds_per_step: float
) -> str | None:
    """Why nowcasts do not pay; None if they do, or if there were too few to tell.

    They do not if none of the last ten was accepted, or if the steps that these have saved would have taken less time
    than they took themselves.

    Args:
        events: all nowcasts so far.
        costs: their times, in the same order.
        seconds_per_step: mean time of a training step [seconds].
    """
    recent = events[-WINDOW:]
    if len(recent) < WINDOW or any(event.loss_before is None for event in recent):
        return None
    if not any(event.accepted for event in recent):
        return f"none of the last {counted(WINDOW, 'nowcast')} was accepted"
    saved = steps_saved(recent) * seconds_per_step
    spent = sum(cost.total for cost in costs[-WINDOW:])
    if saved >= spent:
        return None
    return (
        f"the last {counted(WINDOW, 'nowcast')} took {spent:.3g} s and saved steps of about {saved:.3g} s of training"
    )


def _saved(event: NowcastEvent, rate: float) -> float:
    horizon = float(event.horizon or 0)
    return min(event.gain / rate, horizon) if rate > 0 else horizon
