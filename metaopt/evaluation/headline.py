"""The figures of a comparison that a run shows first, under the same names for all contenders, and in a sentence."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from ..training.tracker import Tracker
from .rates import at_best_rates
from .results import HOLD, Comparison, Curve
from .summary import Standing, Summary
from .wording import fewer_steps, interval, number


def figures_of(standing: Standing) -> dict[str, float]:
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


def show_contender(comparison: Comparison, standing: Standing, tracker: Tracker) -> None:
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


class Judgement(NamedTuple):
    """What a comparison says of the judged optimizer: a line of Markdown, and its figures by name."""

    told: str
    figures: dict[str, float]


def judgement(comparison: Comparison) -> Judgement:
    """The case and its result, for whoever looks at the judged optimizer."""
    summary = Summary(at_best_rates(comparison))
    told = f"{case(comparison.config, comparison.rates)}: {result(summary)}"
    return Judgement(told, figures_of(summary.judged))


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


def _figures_in_words(standing: Standing, comparison: Comparison) -> str:
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
