"""Reports of a comparison of a user's own training: a table for the terminal, `report.md`, `report.html`, metrics."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from ..comparison.results import Arm, TrialResult
from ..comparison.summary import ComparisonSummary, comparison_table
from ..core.documents import Section, csv_text, json_text, markdown
from ..core.text import aligned, counted
from ..core.tracker import Tracker
from ..figures import rendered
from ..figures.page import box, heading, inline_figure, page, prose, table
from .charts.base import Chart
from .charts.training_pairs import training_charts

_HOW_TO_READ = """\
*plain* is the training without nowcasts, *nowcast* the one with them. Both have the same random seed, and so the same
initial weights and the same batches. *EMA* rows are running averages of the weights of *plain*, which cost next to
nothing; *average of nowcast* is the average that `Nowcast` keeps, and *best weights of nowcast* are the last weights or
that average, whichever the guard prefers. *Seconds*: from the call of `trial.optimizer` to the end of the function,
without the averages. *Overhead*: what nowcasts added to the training (forecasts, guard, re-estimation of statistics,
averages and snapshots), over the time of its steps. *Difference*: paired by random seed, with a 95 % interval by
Student's t, in % of the mean of *plain*. There is *no difference* if the interval lies within ± `least`; else it
*helps* or *harms* if the interval excludes zero. The verdict is that of *nowcast*, the weights at the end."""

_LIMITS = """\
- One training, on one machine; other data, networks and learning rates need comparisons of their own.
- The 95 % interval assumes differences that are about normally distributed. One comparison in twenty says *helps* or \
*harms* without a true difference.
- The best of several averages is chosen on the same random seeds, which favours it slightly.
- Seconds are wall-clock time, which other processes on the machine change."""


def training_table(summary: ComparisonSummary) -> str:
    """The contenders in aligned plain text, then what a reader should know."""
    heads, rows = comparison_table(summary)
    return "\n".join([*aligned([heads, *rows]), *summary.notes]) + "\n"


def training_markdown(summary: ComparisonSummary) -> str:
    """The verdicts, the table, notes and limits."""
    return markdown(_title(summary), _verdicts(summary), _sections(summary))


def training_html(summary: ComparisonSummary, charts: Sequence[Chart]) -> str:
    """A page with the text of `report.md` and all charts. It has no script and loads nothing."""
    first, *others = _verdicts(summary)
    parts = [prose(first, "headline"), *map(prose, others)]
    if summary.notes:
        parts.append(box(prose(_bullets(summary.notes)), "notes"))
    parts += [
        inline_figure(chart.name, chart.title, rendered(chart.figure())["svg"], chart.caption) for chart in charts
    ]
    for section in _sections(summary):
        blocks = [
            prose(block) if isinstance(block, str) else table(*block, {}, str(Arm.NOWCAST)) for block in section.blocks
        ]
        parts += [heading(section.title, section.level), *blocks]
    return page(_title(summary), parts)


def publish_training(summary: ComparisonSummary, tracker: Tracker) -> None:
    """Log all results of a comparison.

    Args:
        tracker: receives a child run per contender, metrics, charts, `comparison.json`, `contenders.csv`, `report.md`
            and `report.html`.
    """
    last = max((result.steps for result in summary.comparison.results), default=0)
    for row in summary.rows:
        with tracker.child(f"{row.name}: {summary.comparison.name}") as run:
            run.tags({"metaopt.phase": "contender"})
            run.params({"contender": row.name})
            run.metrics(_finite({"final_metric": row.mean, "train_seconds": row.seconds or math.nan}), last)
            if row.name in list(Arm):
                _log_curve([*summary.comparison.of(Arm(row.name)).values()], run)
            run.describe(
                purpose=f"Contender *{row.name}* of {summary.comparison.name}, the mean over "
                f"{counted(len(row.values), 'random seed')}."
            )
    tracker.metrics(comparison_metrics(summary), last)
    charts = training_charts(summary)
    for chart in charts:
        tracker.figure(chart.figure(), chart.name)
    tracker.text(json_text(summary.to_mapping()), "comparison.json")
    tracker.text(_csv(summary), "contenders.csv")
    tracker.text(training_markdown(summary), "report.md")
    tracker.text(training_html(summary, charts), "report.html")
    tracker.describe(result=f"**{summary.verdict.sentence}**; {summary.lines['seconds']}.")


def comparison_metrics(summary: ComparisonSummary) -> dict[str, float]:
    """The figures of a comparison by metric name, without those that have no finite value."""
    values: dict[str, float] = {}
    for name, judged in (("difference", summary.verdict), ("difference_seconds", summary.seconds)):
        if judged.difference is not None:
            mean, low, high = judged.difference
            values[name] = mean
            if low is not None and high is not None:
                values |= {f"{name}_low": low, f"{name}_high": high}
    if summary.against_average is not None and summary.against_average.difference is not None:
        values["difference_to_average"] = summary.against_average.difference.mean
    if summary.to_equal_loss is not None:
        values["steps_to_equal_loss"] = summary.to_equal_loss.steps.mean
        if summary.to_equal_loss.seconds is not None:
            values["seconds_to_equal_loss"] = summary.to_equal_loss.seconds.mean
    nowcast = next(row for row in summary.rows if row.name == Arm.NOWCAST)
    if nowcast.overhead is not None:
        values["overhead"] = nowcast.overhead
    return _finite(values)


def _log_curve(results: Sequence[TrialResult], tracker: Tracker) -> None:
    """Log the mean over random seeds of the reported losses, if all reported at the same steps."""
    if len({tuple(point.step for point in result.curve) for result in results}) == 1:
        for points in zip(*(result.curve for result in results), strict=True):
            tracker.metrics(_finite({"reported_loss": fmean(point.loss for point in points)}), points[0].step)


def _title(summary: ComparisonSummary) -> str:
    return f"Do nowcasts help {summary.comparison.name}?"


def _verdicts(summary: ComparisonSummary) -> list[str]:
    first, *others = summary.lines.items()
    return [f"**{first[1]}** (95 %, {counted(summary.verdict.pairs, 'random seed')})", _bullets(map(": ".join, others))]


def _sections(summary: ComparisonSummary) -> list[Section]:
    heads, rows = comparison_table(summary, most=0)
    found = [Section("Results", ((heads, rows), _HOW_TO_READ)), Section("By random seed", (_by_seed(summary),))]
    if summary.notes:
        found.insert(1, Section("Notes", (_bullets(summary.notes),)))
    return [*found, Section("Limits", (_LIMITS,))]


def _by_seed(summary: ComparisonSummary) -> tuple[list[str], list[list[str]]]:
    plain, nowcast = summary.comparison.of(Arm.PLAIN), summary.comparison.of(Arm.NOWCAST)
    heads = ["random seed", *(row.name for row in summary.rows), "seconds plain", "seconds nowcast", "nowcasts kept"]
    rows = []
    for seed in summary.comparison.seeds:
        values = [f"{row.values[seed]:.4g}" if seed in row.values else "–" for row in summary.rows]
        seconds = [f"{results[seed].seconds:.2f}" if seed in results else "–" for results in (plain, nowcast)]
        events = nowcast[seed].events if seed in nowcast else ()
        kept = f"{sum(event.accepted for event in events)} of {len(events)}" if events else "–"
        rows.append([str(seed), *values, *seconds, kept])
    return heads, rows


def _csv(summary: ComparisonSummary) -> str:
    rows = []
    for row in summary.rows:
        results = summary.comparison.of(Arm(row.name)) if row.name in list(Arm) else {}
        for seed, value in row.values.items():
            result = results.get(seed)
            measured = [result.steps, result.seconds, result.overhead] if result else [None] * 3
            rows.append([row.name, seed, value, *measured])
    return csv_text(["contender", "seed", summary.comparison.metric, "steps", "seconds", "overhead"], rows)


def _bullets(lines: Sequence[str] | map) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
