"""Run all contenders side by side, and tell the outside how they did."""

import json
import logging
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ..errors import Diverged
from ..optimizers.average import Average
from ..optimizers.base import GenerativeOptimizer
from ..optimizers.line import Line
from ..tasks import Task, get_task, task_config
from ..training.tracker import Tracker
from ..weights.files import write_text
from .config import EvaluateConfig
from .controls import Trials
from .plots import figures
from .report import report_markdown
from .results import HOLD, Comparison, Curve, Prediction
from .summary import Standing, Summary
from .twins import Bench, Witness, train_twin

EMA = "EMA"
BASELINES: Mapping[str, type[GenerativeOptimizer]] = {"line": Line, "average": Average}

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, optimizer: GenerativeOptimizer, tracker: Tracker) -> Comparison:
    """Judge a generative optimizer on held-out random seeds against hold, EMA, line and average.

    Args:
        optimizer: the one to judge, ready to predict.
        tracker: gets one child run per contender, the summary's figures, plots, `report.md` and `evaluation.json`.
    Raises:
        InvalidConfig, UnknownName, TaskDataError: something that the configuration names cannot be had.
        Diverged: the hold twin's loss is not finite, so that there is nothing to compare with.
    """
    task = get_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    judged = contender_name(optimizer)
    contenders = {**{name: kind() for name, kind in BASELINES.items()}, judged: optimizer}
    # Beyond the seeds that are judged, so that no control sees a run that is a contender.
    others = _hold(Bench(config, task, config.seed + config.seeds))[1].snapshots if config.controls else None
    curves: list[Curve] = []
    predictions: list[Prediction] = []
    for seed in range(config.seed, config.seed + config.seeds):
        bench = Bench(config, task, seed)
        hold, witness = _hold(bench)
        curves += [hold, witness.average_curve(EMA, hold)]
        curves += [train_twin(bench, name, contender) for name, contender in contenders.items()]
        trials = Trials(bench, witness.snapshots)
        predictions += [made for name, contender in contenders.items() for made in trials.judge(name, contender)]
        predictions += trials.judge_controls(optimizer, others) if others is not None else []
        log.info("random seed %d: final validation loss %s", seed, _final_losses(curves, seed))
    comparison = Comparison(config.to_mapping(), judged, tuple(curves), tuple(predictions))
    _publish(comparison, config, task, tracker)
    return comparison


def contender_name(optimizer: GenerativeOptimizer) -> str:
    """What the judged optimizer is called among the contenders: `perceiver` for a PerceiverOptimizer."""
    name = type(optimizer).__name__.removesuffix("Optimizer").lower() or "optimizer"
    return f"judged {name}" if name in {HOLD, EMA.lower(), *BASELINES} else name


def _hold(bench: Bench) -> tuple[Curve, Witness]:
    witness = Witness(bench)
    try:
        hold = train_twin(bench, HOLD, watch=witness)
        if not all(map(math.isfinite, hold.losses)):
            raise Diverged("the validation loss is not finite")
    except Diverged as error:
        raise Diverged(
            f"{bench.config.base_optimizer} alone diverges with random seed {bench.seed} at lr {bench.lr:.3g} "
            f"({error}), so there is nothing to compare with; take a lower lr"
        ) from error
    return hold, witness


def _final_losses(curves: list[Curve], seed: int) -> str:
    return ", ".join(f"{curve.contender} {curve.losses[-1]:.4f}" for curve in curves if curve.seed == seed)


def _publish(comparison: Comparison, config: EvaluateConfig, task: Task, tracker: Tracker) -> None:
    summary = Summary(comparison)
    result = json.dumps({**comparison.to_mapping(), "summary": summary.to_mapping()}, indent=1, allow_nan=False) + "\n"
    if config.output is not None:
        write_text(config.output, result)
    tracker.dataset(config.task, config.task, task.digest(), "evaluation")
    for contender in comparison.contenders:
        _publish_curves(contender, comparison.curves_of(contender), tracker)
    for standing in summary.standings:
        tracker.metrics(_finite(_figures_of(standing)), config.steps)
    # Tracking servers take no apostrophe in a metric's name.
    gains = {f"gain/{control.control}".replace("'", ""): control.gain.mean for control in summary.controls}
    tracker.metrics(_finite(gains), config.steps)
    for name, figure in figures(comparison).items():
        tracker.figure(figure, name)
    tracker.text(result, "evaluation.json")
    tracker.text(report_markdown(comparison), "report.md")


def _publish_curves(contender: str, curves: list[Curve], tracker: Tracker) -> None:
    with tracker.child(f"evaluation: {contender}") as run:
        run.params({"contender": contender})
        for points in zip(*(curve.points for curve in curves), strict=True):
            run.metrics(_finite({"val_loss": fmean(point.loss for point in points)}), points[0].step)


def _figures_of(standing: Standing) -> dict[str, Any]:
    name = standing.contender
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
