"""What the nowcasts of a training have done and cost, as text."""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.text import aligned, counted
from ..generative.base import GenerativeOptimizer
from .budget import TimeBudget
from .costs import NowcastCost
from .guards.data_guard import BoundGuard
from .policy import NowcastEvent, NowcastPolicy
from .state import Record


def summary_of(
    base: torch.optim.Optimizer,
    forecaster: GenerativeOptimizer,
    policy: NowcastPolicy,
    guard: Any,
    record: Record,
) -> str:
    """The summary of a training with nowcasts.

    Args:
        base: base optimizer.
        forecaster: generative optimizer.
        policy: when nowcasts take place.
        guard: the guard function; None without a guard.
        record: what has happened so far.
    """
    events, budget = record.events, record.budget
    horizons = ", ".join(map(str, policy.all_horizons))
    averaging = f", of averages of decay {forecaster.averaging:g}" if forecaster.averaging else ""
    rows = [
        ("base", _described(base)),
        ("forecaster", f"{type(forecaster).__name__}, from {counted(forecaster.history, 'snapshot')}{averaging}"),
        ("schedule", f"every {counted(policy.every, 'step')}, a snapshot every {counted(policy.stride, 'step')}"),
        ("horizons", f"{horizons} steps"),
        ("guard", _guard(guard)),
        ("nowcasts", _nowcasts(record.steps, events)),
        *([("mean gain", _gain(events))] if any(event.gain for event in events) else []),
        ("seconds", _seconds(record.costs, budget)),
        ("overhead", _overhead(budget)),
        *([("off", budget.off)] if budget.off else []),
    ]
    return "\n".join(aligned(rows))


def _described(base: torch.optim.Optimizer) -> str:
    rates = dict.fromkeys(f"{float(group['lr']):.4g}" for group in base.param_groups if "lr" in group)
    return ", ".join([type(base).__name__, *([f"learning rate {' and '.join(rates)}"] if rates else [])])


def _guard(guard: Any) -> str:
    if guard is None:
        return "none: every finite forecast is accepted"
    return f"{counted(guard.examples, 'example')} at each nowcast" if isinstance(guard, BoundGuard) else "a function"


def _nowcasts(steps: int, events: Sequence[NowcastEvent]) -> str:
    accepted, followed = (sum(getattr(event, name) for event in events) for name in ("accepted", "followed"))
    return f"{len(events)} in {counted(steps, 'step')}: {accepted} accepted, {followed} followed by the weights"


def _gain(events: Sequence[NowcastEvent]) -> str:
    gains = [(event.gain, event.loss_before) for event in events if event.accepted and event.loss_before]
    gain = sum(each for each, _ in gains) / len(gains)
    before = sum(each for _, each in gains) / len(gains)
    return f"{gain:.4g} of the guard's loss by an accepted nowcast ({100 * gain / before:.3g} %)"


def _seconds(costs: Sequence[NowcastCost], budget: TimeBudget) -> str:
    parts = {
        "steps": budget.training,
        "averages and snapshots": budget.upkeep,
        "forecasts": sum(cost.forecast for cost in costs),
        "guard": sum(cost.guard for cost in costs),
        "re-estimation": sum(cost.reestimation for cost in costs),
    }
    rest = budget.nowcasts - sum(cost.forecast + cost.guard + cost.reestimation for cost in costs)
    return ", ".join(f"{name} {seconds:.3g}" for name, seconds in {**parts, "other": max(rest, 0.0)}.items())


def _overhead(budget: TimeBudget) -> str:
    limit = f"at most {100 * budget.max_overhead:.3g} %" if budget.max_overhead is not None else "no limit"
    return f"{100 * budget.overhead:.3g} % of the time of the steps ({limit})"
