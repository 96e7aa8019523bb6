"""A comparison in words and tables: short for a terminal, whole for `report.md`."""

from collections.abc import Sequence

from .results import HOLD, Comparison
from .statistics import Interval
from .summary import Arrival, ControlResult, Standing, Summary

_NONE = "–"


_NOWCASTS = """Before and after: validation loss of single unguarded predictions from the states of hold (geometric
means). Squared error: relative to copying W_t; below 1 is closer to where the weights went. Kept and guard passes: in
the contender's own, guarded training."""

_CONTROLS = """Each control spoils what the optimizer is told, and takes what it then generates. *Zero history*: all
snapshots are zero. *Shuffled history*: those before W_t in reverse order. *Another run's history*: the path of another
random seed, moved to end in W_t. *Wrong times*: the past is said to have taken a tenth of its time. Gain kept: share of
the real prediction's gain in log loss; below zero the control does harm, below one half it fails, as it must. One that
does not fail shows that the optimizer makes no use of what was spoilt."""


def terminal_table(comparison: Comparison) -> str:
    """The contenders in aligned plain text, one line each, and what the controls say."""
    summary = Summary(comparison)
    heads = ["contender", "steps: early", "full", "speed-up (95 %)", "final loss", "loss at a nowcast", "kept"]
    rows = [
        [
            standing.contender,
            _steps(standing.early),
            _steps(standing.full),
            _interval(standing.full.speed_up) if standing.contender != HOLD else "1",
            f"{standing.final_loss:.4f}",
            _before_after(standing),
            _accepted(standing),
        ]
        for standing in summary.standings
    ]
    lines = [*_aligned([heads, *rows]), *_footnotes(summary)]
    if summary.controls:
        lines.append(f"Controls that must fail: {'; '.join(f'{c.control} {_verdict(c)}' for c in summary.controls)}.")
    return "\n".join(lines) + "\n"


def report_markdown(comparison: Comparison) -> str:
    """What was compared, all figures, the controls, and what the figures cannot say."""
    summary = Summary(comparison)
    parts = [
        f"# {comparison.judged} against its baselines",
        _headline(summary.judged),
        _what_was_compared(comparison),
        "## Steps to target",
        _markdown_table(*_arrival_rows(summary)),
        "\n".join(_footnotes(summary)),
        "## Nowcasts",
        _markdown_table(*_nowcast_rows(summary)),
        _NOWCASTS,
    ]
    if summary.controls:
        parts += ["## Controls that must fail", _markdown_table(*_control_rows(summary)), _CONTROLS]
    return "\n\n".join([*parts, "## Limits", _limits(comparison)]) + "\n"


def _headline(judged: Standing) -> str:
    full, early = judged.full, judged.early
    return (
        f"**{judged.contender} reaches the best loss of hold in {_fewer(full)} steps** (speed-up "
        f"{_interval(full.speed_up)}; the loss at half of the budget in {_fewer(early)}, "
        f"{_interval(early.speed_up)}). In seconds of training, predictions and guard included: "
        f"{_interval(full.speed_up_in_time)}."
        + (f" {full.never} of {len(full.steps)} random seeds never got there." if full.never else "")
    )


def _what_was_compared(comparison: Comparison) -> str:
    config = comparison.config
    last = config["seed"] + config["seeds"] - 1
    return f"""
{config["target_model"]} on {config["task"]}, {config["base_optimizer"]} at lr {config["lr"]}, batches of
{config["batch_size"]}, {config["steps"]} steps, held-out random seeds {config["seed"]} to {last}. Contenders of one
random seed are twins: same initial weights, same batches, same points of measurement. *hold* is the base optimizer
alone; *EMA* the running average of its weights (decay 0.98); all others replace the weights by a prediction every
{config["every"]} steps, from snapshots {config["stride"]} steps apart, and keep it only if the loss on held-out
examples (not those that judge) does not rise. The judged optimizer is `{config["optimizer"]}`.""".strip()


def _arrival_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
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
            _steps(s.early),
            _interval(s.early.speed_up),
            _steps(s.full),
            _interval(s.full.speed_up),
            _fewer(s.full),
            _interval(s.full.speed_up_in_time),
            f"{s.final_loss:.4f}",
        ]
        for s in summary.standings
    ]
    return heads, rows


def _nowcast_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    heads = ["contender", "before", "after", "after / before", "squared error", "kept", "guard passes"]
    rows = [
        [
            s.contender,
            _number(s.before),
            _number(s.after),
            _interval(s.gain) if s.gain else _NONE,
            _number(s.error, 2),
            _accepted(s),
            str(s.guard_passes),
        ]
        for s in summary.standings
        if s.nowcasts
    ]
    return heads, rows


def _control_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    heads = ["predictor", "after", "after / before", "gain kept", "verdict"]
    judged = summary.judged
    gain = _interval(judged.gain) if judged.gain else _NONE
    real = [judged.contender, _number(judged.after), gain, "100 %", "the real thing"]
    rows = [
        [control.control, _number(control.after), _interval(control.gain), _percent(control.kept), _verdict(control)]
        for control in summary.controls
    ]
    return heads, [real, *rows]


def _limits(comparison: Comparison) -> str:
    seeds, every = comparison.config["seeds"], comparison.config["evaluate_every"]
    return f"""- Random seeds: {seeds}, of one case. A claim needs five or more, and several cases.
- Held out is the random seed alone, provided that meta-training did not use these. Other learning rates, widths,
  architectures and data sets are cases of their own.
- hold runs at the one learning rate above. Where that is not its best, part of a speed-up could be had by tuning.
- Targets are the best loss of a noisy curve, measured every {every} steps; steps to target are no finer than that.
- Not compared here: cosine decay, Schedule-Free, EMA 0.99, nonlinear acceleration.
- Seconds are wall-clock time on a machine that may have been busy with other things."""


def _footnotes(summary: Summary) -> list[str]:
    late = [s for s in summary.standings if s.early.never or s.full.never]
    if not late:
        return []
    counts = ", ".join(f"{s.contender} {s.early.never} early and {s.full.never} full" for s in late)
    return [
        f"≥: of {len(late[0].full.steps)} random seeds some never got there ({counts}). They count as arrived one "
        "measurement after the budget, so the true speed-up is at most what is shown."
    ]


def _steps(arrival: Arrival) -> str:
    return f"{'≥' if arrival.never else ''}{arrival.counted_steps:.0f}"


def _fewer(arrival: Arrival) -> str:
    at_least = "at least " if arrival.never and arrival.fewer_steps < 0 else ""
    return f"{at_least}{abs(arrival.fewer_steps):.0f} % {'fewer' if arrival.fewer_steps >= 0 else 'more'}"


def _interval(interval: Interval) -> str:
    mean, low, high = interval
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} ({low:.2f}–{high:.2f})"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.0f} %"


def _number(value: float | None, digits: int = 4) -> str:
    return _NONE if value is None else f"{value:.{digits}f}" if value < 1000 else f"{value:.1e}"


def _before_after(standing: Standing) -> str:
    return _NONE if standing.after is None else f"{_number(standing.before)} → {_number(standing.after)}"


def _accepted(standing: Standing) -> str:
    return f"{standing.accepted} of {standing.nowcasts}" if standing.nowcasts else _NONE


def _verdict(control: ControlResult) -> str:
    if control.fails is None:
        return "undecided (no gain to lose)"
    return "fails" if control.fails else f"DOES NOT FAIL (keeps {_percent(control.kept)} of the gain)"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])
