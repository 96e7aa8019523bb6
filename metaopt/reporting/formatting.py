"""Formats the results of an evaluation as cells of tables."""

from collections.abc import Mapping
from typing import Any

from ..evaluation import results
from ..evaluation.results import HOLD
from ..evaluation.statistics import Interval
from ..evaluation.summary import ContenderSummary, ControlResult, StepsToTarget

NONE = "–"
"""Cell without a value."""


def label(contender: str, config: Mapping[str, Any]) -> str:
    """The name of a contender in the tables and figures of an evaluation with this configuration."""
    return results.label(contender, config["base_optimizer"])


def legend(config: Mapping[str, Any]) -> str:
    """What the contenders are that a reader cannot guess, in one line."""
    return (
        f"{label(HOLD, config)}: no nowcasts. line, average, slopes: nowcasts without learning, by a straight line "
        "through the last snapshots, their mean, and lines over half of the horizon."
    )


def steps(target: StepsToTarget) -> str:
    """Steps to the target; `≥` if some random seeds did not reach it."""
    return f"{'≥' if target.never else ''}{target.counted_steps:.0f}"


def fewer_steps(target: StepsToTarget) -> str:
    """Saved share of hold's steps ("42 % fewer"), or the additional share ("5 % more")."""
    at_least = "at least " if target.never and target.fewer_steps < 0 else ""
    return f"{at_least}{abs(target.fewer_steps):.0f} % {'fewer' if target.fewer_steps >= 0 else 'more'}"


def share_saved(ratio: Interval) -> str:
    """What a ratio below one saves, with its bounds ("6 % (3 to 10 %)")."""
    mean, low, high = (None if bound is None else 100 * (1 - bound) for bound in ratio)
    bounds = "" if low is None or high is None else f" ({high:.0f} to {low:.0f} %)"
    return f"{mean:.0f} %{bounds}"


def interval(value: Interval) -> str:
    """A mean with its bounds ("1.27 (1.05–1.53)"), or without if there are none, or all values are the same."""
    mean, low, high = value
    if low is None or high is None or f"{low:.2f}" == f"{high:.2f}":
        return f"{mean:.2f}"
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"


def percent(share: float | None) -> str:
    """A share in percent."""
    return NONE if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A number with some decimals; from 1000 on in scientific notation."""
    return NONE if value is None else f"{value:.{digits}f}" if value < 1000 else f"{value:.1e}"


def before_and_after(contender: ContenderSummary) -> str:
    """Validation loss before and after one unguarded prediction."""
    return NONE if contender.after is None else f"{number(contender.before)} → {number(contender.after)}"


def kept(contender: ContenderSummary) -> str:
    """Number of accepted nowcasts among all nowcasts."""
    return f"{contender.accepted} of {contender.nowcasts}" if contender.nowcasts else NONE


def verdict(control: ControlResult) -> str:
    """Whether a control fails."""
    if control.fails is None:
        return "undecided (no gain to lose)"
    return "fails" if control.fails else f"DOES NOT FAIL (keeps {percent(control.kept)} of the gain)"
