"""Run all contenders side by side, and tell the outside how they did."""

import json
import logging

from ..configuration import Range
from ..errors import Diverged
from ..optimizers.base import GenerativeOptimizer
from ..tasks import Task, get_task, task_config
from ..training.tracker import Tracker
from ..weights.files import write_text
from .baselines import TRAININGS, nowcasts
from .charts import charts
from .config import EvaluateConfig
from .contest import Contest
from .headline import case, show_contender, show_judged, title
from .portrait import Course, Portrait, portrait
from .rates import at_best_rates, best_rate
from .readouts import READ_OUTS
from .report import report_markdown
from .results import CHAMPION, HOLD, Comparison, Curve, Prediction
from .summary import Summary
from .tables import contenders_csv
from .twins import Bench
from .web import report_html

log = logging.getLogger(__name__)


def evaluate(
    config: EvaluateConfig,
    optimizer: GenerativeOptimizer,
    tracker: Tracker,
    champion: GenerativeOptimizer | None = None,
) -> Comparison:
    """Judge a generative optimizer on held-out random seeds against all baselines that the configuration asks for.

    Args:
        optimizer: the one to judge, ready to predict.
        tracker: gets one child run per contender, the summary's figures, charts, `report.md`, `report.html` and
            `evaluation.json`.
        champion: a further contender, which the judged one is to beat.
    Raises:
        InvalidConfig, UnknownName, TaskDataError, TrajectoryError: something that the configuration names cannot be
            had.
        Diverged: the hold twin's loss is not finite at any learning rate, so that there is nothing to compare with.
    """
    task = get_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    judged = contender_name(optimizer)
    told = case(config.to_mapping(), [str(rate) for rate in config.rates])
    tracker.note(does=f"Judges {judged}: {told}. Each run below is one contender.")
    rival = {CHAMPION: champion} if champion is not None else {}
    contest = Contest(config, task, {**rival, judged: optimizer})
    with contest.shown():
        curves, predictions = _at_all_rates(contest)
        novelty = contest.novelty(curves[0].rate)
        comparison = Comparison(config.to_mapping(), judged, tuple(curves), tuple(predictions), novelty)
        sitting = _portrait(contest, optimizer, Range.parse(best_rate(comparison, judged)))
    _publish(comparison, sitting, config, task, tracker)
    return comparison


def contender_name(optimizer: GenerativeOptimizer) -> str:
    """What the judged optimizer is called among the contenders: `perceiver` for a PerceiverOptimizer."""
    name = type(optimizer).__name__.removesuffix("Optimizer").lower() or "optimizer"
    taken = {HOLD, CHAMPION, *READ_OUTS, *TRAININGS, *nowcasts(optimizer.averaging)}
    return f"judged {name}" if name in map(str.lower, taken) else name


def _at_all_rates(contest: Contest) -> tuple[list[Curve], list[Prediction]]:
    """Everything at each learning rate but those at which the base optimizer alone diverges, unless it always does."""
    curves: list[Curve] = []
    predictions: list[Prediction] = []
    failed: Diverged | None = None
    for rate in contest.config.rates:
        try:
            more_curves, more_predictions = contest.curves_and_predictions(rate)
        except Diverged as error:
            log.warning("lr %s is left out: %s", rate, error)
            failed = error
            continue
        curves += more_curves
        predictions += more_predictions
    if failed is not None and not curves:
        raise failed
    return curves, predictions


def _portrait(contest: Contest, optimizer: GenerativeOptimizer, rate: Range) -> Portrait | None:
    """A closer look at the hold twin of the first random seed; its snapshots are in the cache."""
    bench = Bench(contest.config, contest.task, contest.config.seed, rate)
    return portrait(Course(bench, contest.hold(bench).snapshots), optimizer)


def _publish(
    comparison: Comparison, sitting: Portrait | None, config: EvaluateConfig, task: Task, tracker: Tracker
) -> None:
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
    drawn = charts(best, sitting)
    for chart in drawn:
        tracker.figure(chart.drawn(), chart.name)
    tracker.text(result, "evaluation.json")
    tracker.text(contenders_csv(comparison), "contenders.csv")
    tracker.text(report_markdown(comparison), "report.md")
    tracker.text(report_html(comparison, drawn), "report.html")
