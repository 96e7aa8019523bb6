"""Publishes an evaluation: a child run per contender, metrics, charts, tables and reports."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from ..core.tracker import FINAL_VAL_LOSS, SPEEDUP, Tracker
from ..diagnostics import Diagnostics
from ..evaluation.config import EvaluateConfig
from ..evaluation.results import CHAMPION, HOLD, Comparison, Curve
from ..evaluation.summary import ContenderSummary, Summary, at_best_rates
from ..tasks import Task
from ..weights.atomic import write_text
from .charts import charts
from .findings import describe_case, describe_contender, describe_result, describe_task
from .formatting import label
from .html import report_html
from .report import report_markdown
from .tables import contenders_csv


def publish(
    comparison: Comparison, diagnostics: Diagnostics | None, config: EvaluateConfig, task: Task, tracker: Tracker
) -> None:
    """Log all results of an evaluation, and write `config.output` if it is given.

    Args:
        comparison: results at all learning rates.
        diagnostics: measurements of one of its runs; None if the budget is too short for any.
        tracker: receives a child run per contender, the metrics of the candidate, charts, `evaluation.json`,
            `contenders.csv`, `report.md` and `report.html`.
    Raises:
        StorageError: `config.output` cannot be written.
    """
    best = at_best_rates(comparison)
    summary = Summary(best)
    result = json.dumps({**comparison.to_mapping(), "summary": summary.to_mapping()}, indent=1, allow_nan=False) + "\n"
    if config.output is not None:
        write_text(config.output, result)
    tracker.dataset(config.task, config.task, task.digest(), "evaluation")
    for contender in summary.contenders:
        name = label(contender.contender, comparison.config)
        with tracker.child(f"{name}: {describe_task(comparison.config)}") as run:
            _log_contender(best, contender, run)
    log_candidate(summary, tracker)
    found = charts(best, diagnostics)
    for chart in found:
        tracker.figure(chart.figure(), chart.name)
    tracker.text(result, "evaluation.json")
    tracker.text(contenders_csv(comparison), "contenders.csv")
    tracker.text(report_markdown(comparison), "report.md")
    tracker.text(report_html(comparison, found), "report.html")


def log_candidate(summary: Summary, tracker: Tracker) -> None:
    """Log the candidate's curve and metrics, those of its controls, and the result."""
    comparison, steps = summary.comparison, summary.comparison.config["steps"]
    _log_curve(comparison.curves_of(comparison.candidate), tracker)
    tracker.metrics({**contender_metrics(summary.candidate), **_best_baseline(summary)}, steps)
    gains = {f"gain_{control.control}": control.gain.mean for control in summary.controls}
    # Tracking servers reject an apostrophe in a metric's name, and draw a section of its own for a name with a slash.
    plain = {name.replace("'", "").replace(" ", "_"): value for name, value in gains.items()}
    tracker.metrics(_finite(plain), steps)
    tracker.describe(result=describe_result(summary))


def _best_baseline(summary: Summary) -> dict[str, float]:
    """The figures of the best contender that is not learned, for the list of runs."""
    learned = (summary.comparison.candidate, CHAMPION)
    baselines = [each for each in summary.contenders if each.contender not in learned]
    values = {
        "best_baseline_speedup": max(each.full.speed_up.mean for each in baselines),
        "best_baseline_val_loss": min(each.final_loss for each in baselines),
    }
    return _finite(values)


def contender_metrics(contender: ContenderSummary) -> dict[str, float]:
    """A contender's results by metric name, without those that have no finite value."""
    values = {
        SPEEDUP: contender.full.speed_up.mean,
        "speedup_early": contender.early.speed_up.mean,
        "speedup_seconds": contender.full.speed_up_in_time.mean,
        "steps_to_target": contender.full.counted_steps,
        FINAL_VAL_LOSS: contender.final_loss,
        "gain": contender.gain.mean if contender.gain else math.nan,
        "kept": contender.accepted / contender.nowcasts if contender.nowcasts else math.nan,
        "val_relative_error": math.nan if contender.error is None else contender.error,
    }
    return _finite(values)


def _log_contender(comparison: Comparison, contender: ContenderSummary, run: Tracker) -> None:
    curves, config = comparison.curves_of(contender.contender), comparison.config
    name = label(contender.contender, config)
    run.tags({"metaopt.phase": "contender"})
    run.params({"contender": name, "lr": curves[0].rate})
    _log_curve(curves, run)
    run.metrics(contender_metrics(contender), config["steps"])
    in_files = f" (`{HOLD}` in files)" if contender.contender == HOLD else ""
    evaluated = " (the evaluated optimizer)" if contender.contender == comparison.candidate else ""
    case = describe_case(config, [curves[0].rate])
    run.describe(
        purpose=f"Contender *{name}*{in_files}{evaluated}: {case}; `val_loss` is the mean over random seeds.",
        result=describe_contender(contender, comparison),
    )


def _log_curve(curves: Sequence[Curve], tracker: Tracker) -> None:
    """Log the mean over random seeds."""
    for points in zip(*(curve.points for curve in curves), strict=True):
        tracker.metrics(_finite({"val_loss": fmean(point.loss for point in points)}), points[0].step)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Values that are finite; tracking servers reject or misread the others."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
