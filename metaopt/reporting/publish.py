"""Publish an evaluation: one child run per contender, charts, tables and reports."""

import json

from ..core.tracker import Tracker
from ..diagnostics import Diagnostics
from ..evaluation.config import EvaluateConfig
from ..evaluation.results import Comparison
from ..evaluation.summary import Summary, at_best_rates
from ..tasks import Task
from ..weights.files import write_text
from .charts import charts
from .html import report_html
from .report import report_markdown
from .tables import contenders_csv
from .text import show_contender, show_judged, title


def publish(
    comparison: Comparison, diagnostics: Diagnostics | None, config: EvaluateConfig, task: Task, tracker: Tracker
) -> None:
    """Log everything that an evaluation found, and write `config.output` where it is given.

    Args:
        comparison: with all learning rates.
        diagnostics: of one of its runs; None where the budget was too short for any.
        tracker: gets a child run per contender, the figures of the summary, charts, `evaluation.json`,
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
    for standing in summary.standings:
        with tracker.child(f"{standing.contender}: {title(comparison.config)}") as run:
            run.tags({"metaopt.phase": "contender"})
            run.params({"contender": standing.contender, "lr": best.curves_of(standing.contender)[0].rate})
            show_contender(best, standing, run)
    show_judged(summary, tracker)
    drawn = charts(best, diagnostics)
    for chart in drawn:
        tracker.figure(chart.drawn(), chart.name)
    tracker.text(result, "evaluation.json")
    tracker.text(contenders_csv(comparison), "contenders.csv")
    tracker.text(report_markdown(comparison), "report.md")
    tracker.text(report_html(comparison, drawn), "report.html")
