"""Tables of a report: column names, then rows of text."""

import math
from typing import Any

from ..core.documents import Table, csv_text
from ..evaluation.budgets import losses_at_budgets
from ..evaluation.config import budgets_of
from ..evaluation.results import HOLD, Comparison
from ..evaluation.summary import Summary, at_rate, best_rate, losses_after_nowcasts
from .formatting import NONE, before_and_after, fewer_steps, interval, kept, label, number, percent, steps, verdict

FORECAST = "loss by one forecast"
"""Column with the loss before and after a single forecast; the other columns are of whole trainings."""


def overview(summary: Summary) -> Table:
    """One row per contender, for the terminal."""
    heads = ["contender", "steps: early", "full", "speed-up (95 %)", "in seconds", "final loss", "kept", FORECAST]
    rows = [
        [
            label(each.contender, summary.comparison.config),
            steps(each.early),
            steps(each.full),
            interval(each.full.speed_up) if each.contender != HOLD else "1",
            interval(each.full.speed_up_in_time) if each.contender != HOLD else "1",
            f"{each.final_loss:.4f}",
            kept(each),
            before_and_after(each),
        ]
        for each in summary.contenders
    ]
    return heads, rows


def steps_to_target(summary: Summary) -> Table:
    """Steps and seconds of each contender to the targets."""
    heads = [
        "contender",
        "early: steps",
        "speed-up",
        "full: steps",
        "speed-up",
        "steps needed",
        "in seconds",
        "final loss",
    ]
    rows = [
        [
            label(each.contender, summary.comparison.config),
            steps(each.early),
            interval(each.early.speed_up),
            steps(each.full),
            interval(each.full.speed_up),
            fewer_steps(each.full),
            interval(each.full.speed_up_in_time),
            f"{each.final_loss:.4f}",
        ]
        for each in summary.contenders
    ]
    return heads, rows


def losses_at_parts(comparison: Comparison) -> Table:
    """The loss of each contender at the ends of the parts of the budget, at its best learning rate there."""
    measured = comparison.curves[0].steps
    ends = [step for step in budgets_of(comparison.config["steps"]) if step in measured]
    results = losses_at_budgets(comparison, ends)
    heads = ["contender", *(f"{step} steps" for step in ends), "lr", "at the end / best baseline"]
    rows = []
    for name in comparison.contenders:
        of_contender = [each for each in results if each.contender == name]
        last = of_contender[-1]
        losses = [f"{each.loss:.4f}" if math.isfinite(each.loss) else NONE for each in of_contender]
        ratio = interval(last.ratio) if last.ratio else "1"
        rows.append([label(name, comparison.config), *losses, last.rate, ratio])
    return heads, rows


def nowcasts(summary: Summary) -> Table:
    """Loss and error of single predictions, and the share of accepted nowcasts in training."""
    heads = ["contender", "before", "after", "after / before", "squared error", "kept", "guard passes"]
    rows = [
        [
            each.contender,
            number(each.before),
            number(each.after),
            interval(each.gain) if each.gain else NONE,
            number(each.error, 2),
            kept(each),
            str(each.guard_passes),
        ]
        for each in summary.contenders
        if each.nowcasts
    ]
    return heads, rows


def controls(summary: Summary) -> Table:
    """The real predictions, then the controls."""
    heads = ["predictor", "after", "after / before", "gain kept", "verdict"]
    candidate = summary.candidate
    gain = interval(candidate.gain) if candidate.gain else NONE
    real = [candidate.contender, number(candidate.after), gain, "100 %", "the real predictions"]
    rows = [
        [control.control, number(control.after), interval(control.gain), percent(control.kept), verdict(control)]
        for control in summary.controls
    ]
    return heads, [real, *rows]


def after_nowcasts(comparison: Comparison) -> Table:
    """Loss some steps after a nowcast, relative to that of the base optimizer alone."""
    alone = label(HOLD, comparison.config)
    heads = ["contender", "steps after a nowcast", "loss", alone, "ratio"]
    rows = [
        [each.contender, str(each.delay), number(each.loss), number(each.hold_loss), interval(each.ratio)]
        for each in losses_after_nowcasts(comparison)
    ]
    return heads, rows


def same_rates(comparison: Comparison) -> Table:
    """Speed-up and final loss of each contender at each learning rate, and its best rate."""
    summaries = [Summary(at_rate(comparison, rate)) for rate in comparison.rates]
    rows = [
        [
            label(name, comparison.config),
            best_rate(comparison, name),
            *(cell for summary in summaries for cell in _at_one_rate(summary, name)),
        ]
        for name in comparison.contenders
    ]
    heads = ["contender", "its best lr", *(head for rate in comparison.rates for head in (f"{rate}: speed-up", "loss"))]
    return heads, rows


def contenders_csv(comparison: Comparison) -> str:
    """Numbers of each contender at each learning rate, as comma-separated values."""
    heads = ["lr", "contender", "steps early", "steps", "never", "speed-up", "low", "high", "speed-up in seconds"]
    rows: list[list[Any]] = []
    for rate in comparison.rates:
        for each in Summary(at_rate(comparison, rate)).contenders:
            counts = [each.early.counted_steps, each.full.counted_steps, each.full.never, *each.full.speed_up]
            rest = [each.full.speed_up_in_time.mean, each.final_loss, each.nowcasts, each.accepted]
            rows.append([rate, each.contender, *counts, *rest])
    return csv_text([*heads, "final loss", "nowcasts", "kept"], rows)


def _at_one_rate(summary: Summary, contender: str) -> tuple[str, str]:
    found = next(each for each in summary.contenders if each.contender == contender)
    return interval(found.full.speed_up), f"{found.final_loss:.4f}"
