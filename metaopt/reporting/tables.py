"""The tables of a report: names of columns, then rows of text."""

from ..evaluation.results import HOLD, Comparison
from ..evaluation.summary import Summary, afterwards, at_rate, best_rate
from .text import NONE, before_and_after, fewer_steps, interval, kept, number, percent, said_of, steps

Table = tuple[list[str], list[list[str]]]


def overview(summary: Summary) -> Table:
    """One line per contender, for a terminal."""
    heads = ["contender", "steps: early", "full", "speed-up (95 %)", "final loss", "loss at a nowcast", "kept"]
    rows = [
        [
            s.contender,
            steps(s.early),
            steps(s.full),
            interval(s.full.speed_up) if s.contender != HOLD else "1",
            f"{s.final_loss:.4f}",
            before_and_after(s),
            kept(s),
        ]
        for s in summary.standings
    ]
    return heads, rows


def arrivals(summary: Summary) -> Table:
    """When each contender reached the targets."""
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
            s.contender,
            steps(s.early),
            interval(s.early.speed_up),
            steps(s.full),
            interval(s.full.speed_up),
            fewer_steps(s.full),
            interval(s.full.speed_up_in_time),
            f"{s.final_loss:.4f}",
        ]
        for s in summary.standings
    ]
    return heads, rows


def nowcasts(summary: Summary) -> Table:
    """What single predictions are worth, and how many were kept in training."""
    heads = ["contender", "before", "after", "after / before", "squared error", "kept", "guard passes"]
    rows = [
        [
            s.contender,
            number(s.before),
            number(s.after),
            interval(s.gain) if s.gain else NONE,
            number(s.error, 2),
            kept(s),
            str(s.guard_passes),
        ]
        for s in summary.standings
        if s.nowcasts
    ]
    return heads, rows


def controls(summary: Summary) -> Table:
    """The controls below the real thing."""
    heads = ["predictor", "after", "after / before", "gain kept", "verdict"]
    judged = summary.judged
    gain = interval(judged.gain) if judged.gain else NONE
    real = [judged.contender, number(judged.after), gain, "100 %", "the real thing"]
    rows = [
        [control.control, number(control.after), interval(control.gain), percent(control.kept), said_of(control)]
        for control in summary.controls
    ]
    return heads, [real, *rows]


def some_steps_later(comparison: Comparison) -> Table:
    """What is left of a nowcast after some steps."""
    heads = ["contender", "steps after a nowcast", "loss", "hold's", "ratio"]
    rows = [
        [a.contender, str(a.delay), number(a.loss), number(a.of_hold), interval(a.ratio)]
        for a in afterwards(comparison)
    ]
    return heads, rows


def same_rates(comparison: Comparison) -> Table:
    """All contenders at each learning rate, and which of them is each one's best."""
    same = [Summary(at_rate(comparison, rate)) for rate in comparison.rates]
    rows = [
        [name, best_rate(comparison, name), *(cell for summary in same for cell in _at_one_rate(summary, name))]
        for name in comparison.contenders
    ]
    heads = ["contender", "its best lr", *(head for rate in comparison.rates for head in (f"{rate}: speed-up", "loss"))]
    return heads, rows


def _at_one_rate(summary: Summary, contender: str) -> tuple[str, str]:
    standing = next(s for s in summary.standings if s.contender == contender)
    return interval(standing.full.speed_up), f"{standing.final_loss:.4f}"


def contenders_csv(comparison: Comparison) -> str:
    """The figures of each contender at each learning rate, as comma-separated values."""
    lines = ["lr,contender,steps early,steps,never,speed-up,low,high,speed-up in seconds,final loss,nowcasts,kept"]
    for rate in comparison.rates:
        for s in Summary(at_rate(comparison, rate)).standings:
            counts = [s.early.counted_steps, s.full.counted_steps, s.full.never, *s.full.speed_up]
            cells = [rate, s.contender, *counts, s.full.speed_up_in_time.mean, s.final_loss, s.nowcasts, s.accepted]
            lines.append(",".join("" if cell is None else _cell(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def _cell(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
