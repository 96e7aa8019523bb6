"""Figures as text: what tables and sentences of a report are put together from."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from ..core.tracker import Tracker
from ..evaluation.results import HOLD, Comparison, Curve
from ..evaluation.statistics import Interval
from ..evaluation.summary import ContenderSummary, ControlResult, StepsToTarget, Summary, at_best_rates

NONE = "–"


def steps(arrival: StepsToTarget) -> str:
    """Steps to target, marked where some never got there."""
    return f"{'≥' if arrival.never else ''}{arrival.counted_steps:.0f}"


def fewer_steps(arrival: StepsToTarget) -> str:
    """How many of hold's steps were not needed."""
    at_least = "at least " if arrival.never and arrival.fewer_steps < 0 else ""
    return f"{at_least}{abs(arrival.fewer_steps):.0f} % {'fewer' if arrival.fewer_steps >= 0 else 'more'}"


def interval(value: Interval) -> str:
    """A mean, with its bounds where it has them."""
    mean, low, high = value
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} ({low:.2f}–{high:.2f})"


def percent(share: float | None) -> str:
    """A share; a dash for none."""
    return NONE if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A figure; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}" if value < 1000 else f"{value:.1e}"


def before_and_after(standing: ContenderSummary) -> str:
    """Validation loss around one unguarded prediction."""
    return NONE if standing.after is None else f"{number(standing.before)} → {number(standing.after)}"


def kept(standing: ContenderSummary) -> str:
    """How many nowcasts the guard kept."""
    return f"{standing.accepted} of {standing.nowcasts}" if standing.nowcasts else NONE


def said_of(control: ControlResult) -> str:
    """What a control shows."""
    if control.fails is None:
        return "undecided (no gain to lose)"
    return "fails" if control.fails else f"DOES NOT FAIL (keeps {percent(control.kept)} of the gain)"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of plain text, their columns below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def figures_of(standing: ContenderSummary) -> dict[str, float]:
    """One contender's figures by the names under which trackers know them; those without a value are left out."""
    values = {
        "speedup": standing.full.speed_up.mean,
        "speedup_early": standing.early.speed_up.mean,
        "speedup_seconds": standing.full.speed_up_in_time.mean,
        "steps_to_target": standing.full.counted_steps,
        "final_val_loss": standing.final_loss,
        "gain": standing.gain.mean if standing.gain else math.nan,
        "kept": standing.accepted / standing.nowcasts if standing.nowcasts else math.nan,
        "val_relative_error": math.nan if standing.error is None else standing.error,
    }
    return finite(values)


def show_contender(comparison: Comparison, standing: ContenderSummary, tracker: Tracker) -> None:
    """Give a contender's run its curve, the mean over random seeds, its figures and its description."""
    curves = comparison.curves_of(standing.contender)
    _show_curve(curves, tracker)
    tracker.metrics(figures_of(standing), comparison.config["steps"])
    told = case(comparison.config, [curves[0].rate])
    tracker.note(
        does=f"{_told(standing.contender, comparison)}: {told}; `val_loss` is the mean of these.",
        result=_figures_in_words(standing, comparison),
    )


def show_judged(summary: Summary, tracker: Tracker) -> None:
    """Give a run the curve and figures of the judged optimizer, those of its controls, and the result."""
    comparison, steps = summary.comparison, summary.comparison.config["steps"]
    _show_curve(comparison.curves_of(comparison.judged), tracker)
    tracker.metrics(figures_of(summary.judged), steps)
    gains = {f"gain_{control.control}": control.gain.mean for control in summary.controls}
    # Tracking servers take no apostrophe in a metric's name, and draw a section of its own for what has a slash.
    tracker.metrics({_plain(name): value for name, value in finite(gains).items()}, steps)
    tracker.note(result=result(summary))


def title(config: Mapping[str, Any]) -> str:
    """What was trained."""
    return f"{config['target_model']} on {config['task']}"


def case(config: Mapping[str, Any], rates: Sequence[str]) -> str:
    """What is trained, how, at which learning rates, and with which random seeds."""
    first, count = config["seed"], config["seeds"]
    seeds = f"seeds {first} to {first + count - 1}" if count > 1 else f"seed {first}"
    return (
        f"{title(config)}, {config['base_optimizer']} at lr {', '.join(rates)}, {config['steps']} steps, "
        f"held-out random {seeds}"
    )


class EvaluationSummary(NamedTuple):
    """What a comparison says of the judged optimizer: a line of Markdown, and its figures by name."""

    told: str
    figures: dict[str, float]


def judgement(comparison: Comparison) -> EvaluationSummary:
    """The case and its result, for whoever looks at the judged optimizer."""
    summary = Summary(at_best_rates(comparison))
    told = f"{case(comparison.config, comparison.rates)}: {result(summary)}"
    return EvaluationSummary(told, figures_of(summary.judged))


def result(summary: Summary) -> str:
    """Whether it worked, in a few sentences of Markdown."""
    judged = summary.judged
    own = f"{judged.contender} "  # as in "perceiver without EMA", which is the judged one, too
    others = [s for s in summary.standings if s.contender not in (HOLD, judged.contender) and own not in s.contender]
    others = [each for each in others if math.isfinite(each.final_loss)]
    best = min(others, key=lambda each: each.final_loss, default=None)
    compared = f"; best of the others: {best.contender} {number(best.final_loss)}" if best else ""
    return f"{_figures_in_words(judged, summary.comparison)}{compared}.{_controls(summary)}"


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Tracking servers refuse or misread figures that are not finite."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _plain(name: str) -> str:
    return name.replace("'", "").replace(" ", "_")


def _show_curve(curves: list[Curve], tracker: Tracker) -> None:
    for points in zip(*(curve.points for curve in curves), strict=True):
        tracker.metrics(finite({"val_loss": fmean(point.loss for point in points)}), points[0].step)


def _told(contender: str, comparison: Comparison) -> str:
    alone = f" ({comparison.config['base_optimizer']} alone)" if contender == HOLD else ""
    judged = " (the judged optimizer)" if contender == comparison.judged else ""
    return f"Contender *{contender}*{alone}{judged}"


def _figures_in_words(standing: ContenderSummary, comparison: Comparison) -> str:
    if standing.contender == HOLD:
        return f"validation loss at the end **{number(standing.final_loss)}**; what the others are compared with"
    full, base = standing.full, comparison.config["base_optimizer"]
    hold = fmean(curve.losses[-1] for curve in comparison.curves_of(HOLD))
    steps = f"{fewer_steps(full)} steps than" if abs(full.fewer_steps) >= 0.5 else "as many steps as"
    never = f", {full.never} of {len(full.steps)} random seeds never got there" if full.never else ""
    return (
        f"**{standing.contender} needs {steps} {base} alone** (speed-up "
        f"{interval(full.speed_up)}{never}); validation loss at the end {number(standing.final_loss)}, {base} alone "
        f"{number(hold)}"
    )


def _controls(summary: Summary) -> str:
    if not summary.controls:
        return ""
    sound = [each.control for each in summary.controls if each.fails is False]  # of which the optimizer makes no use
    undecided = sum(each.fails is None for each in summary.controls)
    count = len(summary.controls)
    if undecided:
        return f" Controls: {undecided} of {count} undecided, for there is no gain to lose."
    failing = count - len(sound)
    failed = f" Of {count} controls that must fail, {failing} fail{'s' if failing == 1 else ''}"
    return f"{failed}; **not: {', '.join(sound)}**." if sound else f"{failed}."


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


def _of_certainty(judged: ContenderSummary, comparison: Comparison) -> list[str]:
    seeds, low = len(judged.full.steps), judged.full.speed_up.low
    found = []
    if low is not None and low <= 1:
        found.append(f"The 95 % interval of the speed-up reaches 1 or less: {interval(judged.full.speed_up)}.")
    if seeds < _SEEDS_OF_A_CLAIM:
        found.append(f"{seeds} random seed{'s' if seeds > 1 else ''}; a claim needs {_SEEDS_OF_A_CLAIM} or more.")
    if len(comparison.rates) < 3:
        found.append("hold did not run at three learning rates, so part of a speed-up could be had by tuning.")
    return found
