"""Run all contenders side by side, and tell the outside how they did."""

import json
import logging
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ..errors import Diverged
from ..optimizers.base import GenerativeOptimizer
from ..tasks import Task, get_task, task_config
from ..training.tracker import Tracker
from ..weights.files import write_text
from .baselines import NOWCASTS, TRAININGS
from .config import EvaluateConfig
from .contest import Contest
from .plots import figures
from .rates import at_best_rates
from .readouts import READ_OUTS
from .report import report_markdown
from .results import CHAMPION, HOLD, Comparison, Curve, Prediction
from .summary import Standing, Summary
from .tables import contenders_csv

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
        tracker: gets one child run per contender, the summary's figures, plots, `report.md` and `evaluation.json`.
        champion: a further contender, which the judged one is to beat.
    Raises:
        InvalidConfig, UnknownName, TaskDataError, TrajectoryError: something that the configuration names cannot be
            had.
        Diverged: the hold twin's loss is not finite at any learning rate, so that there is nothing to compare with.
    """
    task = get_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    judged = contender_name(optimizer)
    rival = {CHAMPION: champion} if champion is not None else {}
    contest = Contest(config, task, {**rival, judged: optimizer})
    curves, predictions = _at_all_rates(contest)
    novelty = contest.novelty(curves[0].rate)
    comparison = Comparison(config.to_mapping(), judged, tuple(curves), tuple(predictions), novelty)
    _publish(comparison, config, task, tracker)
    return comparison


def contender_name(optimizer: GenerativeOptimizer) -> str:
    """What the judged optimizer is called among the contenders: `perceiver` for a PerceiverOptimizer."""
    name = type(optimizer).__name__.removesuffix("Optimizer").lower() or "optimizer"
    taken = {HOLD, CHAMPION, *READ_OUTS, *TRAININGS, *NOWCASTS}
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


def _publish(comparison: Comparison, config: EvaluateConfig, task: Task, tracker: Tracker) -> None:
    best = at_best_rates(comparison)
    summary = Summary(best)
    result = json.dumps({**comparison.to_mapping(), "summary": summary.to_mapping()}, indent=1, allow_nan=False) + "\n"
    if config.output is not None:
        write_text(config.output, result)
    tracker.dataset(config.task, config.task, task.digest(), "evaluation")
    for contender in best.contenders:
        _publish_curves(contender, best.curves_of(contender), tracker)
    for standing in summary.standings:
        tracker.metrics(_finite(_figures_of(standing)), config.steps)
    # Tracking servers take no apostrophe in a metric's name.
    gains = {f"gain/{control.control}".replace("'", ""): control.gain.mean for control in summary.controls}
    tracker.metrics(_finite(gains), config.steps)
    for name, figure in figures(best).items():
        tracker.figure(figure, name)
    tracker.text(result, "evaluation.json")
    tracker.text(contenders_csv(comparison), "contenders.csv")
    tracker.text(report_markdown(comparison), "report.md")


def _publish_curves(contender: str, curves: list[Curve], tracker: Tracker) -> None:
    with tracker.child(f"evaluation: {contender}") as run:
        run.params({"contender": contender, "lr": curves[0].rate})
        for points in zip(*(curve.points for curve in curves), strict=True):
            run.metrics(_finite({"val_loss": fmean(point.loss for point in points)}), points[0].step)


def _figures_of(standing: Standing) -> dict[str, Any]:
    name = standing.contender.replace("+", "with")  # which tracking servers take in a metric's name
    figures_of = {
        f"speedup/{name}": standing.full.speed_up.mean,
        f"speedup_early/{name}": standing.early.speed_up.mean,
        f"speedup_seconds/{name}": standing.full.speed_up_in_time.mean,
        f"final_val_loss/{name}": standing.final_loss,
    }
    if standing.gain is not None:
        figures_of[f"gain/{name}"] = standing.gain.mean
    return figures_of


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Tracking servers refuse or misread figures that are not finite."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
