"""What a reader of a comparison must be told, unasked."""

from .rates import at_best_rates
from .results import HOLD, Comparison
from .summary import ControlResult, Standing, Summary
from .wording import interval, percent

_SEEDS_OF_A_CLAIM = 5


def remarks(comparison: Comparison) -> list[str]:
    """Controls that do not fail, baselines that do as well, and what is too little to claim anything; in Markdown."""
    summary = Summary(at_best_rates(comparison))
    found = [_of_control(control) for control in summary.controls if control.fails is not True]
    found += _of_baselines(summary)
    return [*found, *_of_certainty(summary.judged, comparison)]


def _of_control(control: ControlResult) -> str:
    if control.fails is None:
        return f"The control *{control.control}* is undecided: single predictions gain nothing that it could lose."
    return (
        f"The control *{control.control}* **does not fail**: it keeps {percent(control.kept)} of the gain, so the "
        "optimizer makes little use of what this control spoils."
    )


def _of_baselines(summary: Summary) -> list[str]:
    """Contenders other than the judged one's own that reach the target in as few steps, or end as low."""
    judged = summary.judged
    others = [s for s in summary.standings if s.contender != HOLD and judged.contender not in s.contender]
    faster = [s for s in others if s.full.speed_up.mean >= judged.full.speed_up.mean]
    lower = [s for s in others if s.final_loss <= judged.final_loss]
    found = []
    if faster:
        names = ", ".join(f"*{s.contender}* ({s.full.speed_up.mean:.2f})" for s in faster)
        found.append(f"No slower than *{judged.contender}* ({judged.full.speed_up.mean:.2f}): {names}.")
    if lower:
        names = ", ".join(f"*{s.contender}* ({s.final_loss:.4f})" for s in lower)
        found.append(f"Ends no higher than *{judged.contender}* ({judged.final_loss:.4f}): {names}.")
    return found


def _of_certainty(judged: Standing, comparison: Comparison) -> list[str]:
    seeds, low = len(judged.full.steps), judged.full.speed_up.low
    found = []
    if low is not None and low <= 1:
        found.append(f"The 95 % interval of the speed-up reaches 1 or less: {interval(judged.full.speed_up)}.")
    if seeds < _SEEDS_OF_A_CLAIM:
        found.append(f"{seeds} random seed{'s' if seeds > 1 else ''}; a claim needs {_SEEDS_OF_A_CLAIM} or more.")
    if len(comparison.rates) < 3:
        found.append("hold did not run at three learning rates, so part of a speed-up could be had by tuning.")
    return found
