"""Optimizers against all baselines on the frozen cases, by one command:

    python -m benchmarks.frozen.run --data-dir DIR --optimizer builtin

DIR has MNIST, cifar10_images and text. Each contender's learning rate is the best of five on two random seeds, and the
results are of ten others. A baseline that is behind on the two, both in steps and in loss, is not trained further. Per
case the command prints the steps to the best loss of the base optimizer alone and the loss at the end of the budget,
both over those of the best baseline without nowcasts; then the geometric means over the cases, with a 95 % interval
over the random seeds. Finished runs are stored in the folder of the results, so that an interrupted command goes on.
All takes about six hours on one core.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from metaopt.core.documents import markdown_table
from metaopt.evaluation.baselines import AVERAGED, BUDGET_BASELINES, DERIVED_BASELINES, LEARNED_BASES, TRAINED_BASELINES
from metaopt.evaluation.budgets import best_baseline, is_free, losses_at_budgets
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.results import AVERAGE, HOLD, NO_GUARD, Comparison, plain
from metaopt.evaluation.runner import PairedEvaluation
from metaopt.evaluation.statistics import Interval, geometric_mean
from metaopt.evaluation.summary import Summary, at_best_rates, best_rate
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.files import load_optimizer
from metaopt.tasks import Task, load_task, task_config
from metaopt.weights.atomic import write_text

from . import cases

TUNING_SEEDS = 2
"""Random seeds before those of a case, on which learning rates are chosen [count]."""

_MORE_STEPS, _MORE_LOSS = 1.1, 1.03
"""A baseline that exceeds those of the best one by both factors on the tuning seeds is not trained further."""

log = logging.getLogger(__name__)


def compare(config: EvaluateConfig, task: Task, learned: Mapping[str, GenerativeOptimizer]) -> Comparison:
    """Choose the learning rates of all contenders on the tuning seeds, and compare them on the others."""
    names, every = contenders(learned), [str(rate) for rate in config.rates]
    tuning = replace(config, seed=config.seed - TUNING_SEEDS, seeds=TUNING_SEEDS)
    tuned = PairedEvaluation(tuning, task, learned, dict.fromkeys(names, every)).compare()
    dropped = behind(tuned)
    chosen = {name: [best_rate(tuned, name)] for name in names if name not in dropped}
    log.info("learning rates: %s", {name: rate for name, (rate,) in chosen.items()})
    return PairedEvaluation(config, task, learned, chosen).compare()


def contenders(learned: Mapping[str, GenerativeOptimizer]) -> list[str]:
    """Names of all contenders: the candidate, which is the last of the learned optimizers, also without a guard."""
    trained = [*TRAINED_BASELINES, *LEARNED_BASES]
    averages = [f"{name} {AVERAGE}" for name in AVERAGED]
    return [
        HOLD,
        *DERIVED_BASELINES,
        *trained,
        *averages,
        *BUDGET_BASELINES,
        *learned,
        f"{list(learned)[-1]} {NO_GUARD}",
    ]


def behind(tuned: Comparison) -> list[str]:
    """Baselines that are behind the best one on the tuning seeds, both in steps and in loss."""
    found = {name: score for name, score in scores(tuned).items() if is_free(name)}
    return [
        name for name, score in found.items() if _mean(score.steps) > _MORE_STEPS and _mean(score.loss) > _MORE_LOSS
    ]


@dataclass(frozen=True)
class Score:
    """The results of one contender on one case, one value per random seed.

    Attributes:
        steps: steps to the best loss of the base optimizer alone, over those of the best baseline.
        loss: loss at the end of the budget, over that of the best baseline there.
        never: random seeds that did not reach that loss [count].
    """

    steps: tuple[float, ...]
    loss: tuple[float, ...]
    never: int


def scores(comparison: Comparison) -> dict[str, Score]:
    """The results of all contenders of a case.

    The best baseline has the lowest geometric mean of steps, or the lowest mean loss, of the contenders without
    nowcasts; each contender is at its best learning rate.
    """
    summary = Summary(at_best_rates(comparison))
    counted = {each.contender: each.full for each in summary.contenders}
    fastest = min(filter(is_free, counted), key=lambda name: counted[name].counted_steps)
    end = comparison.config["steps"]
    at_end = {each.contender: each for each in losses_at_budgets(comparison, [end])}
    lowest = best_baseline(comparison, end)
    assert lowest is not None, "averages of the base optimizer's weights are always there"
    return {
        name: Score(
            _ratios(counted[name].counted, counted[fastest].counted),
            _ratios(at_end[name].losses, at_end[lowest].losses),
            counted[name].never,
        )
        for name in comparison.contenders
    }


def over_cases(found: Sequence[Score]) -> tuple[Interval, Interval]:
    """Steps and loss over those of the best baseline: geometric means over cases, interval over random seeds."""
    seeds = range(min(len(score.steps) for score in found))
    steps = [geometric_mean([score.steps[seed] for score in found]).mean for seed in seeds]
    loss = [geometric_mean([score.loss[seed] for score in found]).mean for seed in seeds]
    return geometric_mean(steps), geometric_mean(loss)


def _ratios(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    return tuple(
        value / other if math.isfinite(value) else math.inf for value, other in zip(values, others, strict=True)
    )


def table(found: dict[str, dict[str, Score]], names: Sequence[str]) -> str:
    """One row per contender: each case's mean ratio of steps and of losses, and the means over the cases."""
    contenders = list(dict.fromkeys(name for case in names for name in found[case]))
    rows = []
    for contender in contenders:
        of_cases = [found[case][contender] for case in names if contender in found[case]]
        steps, loss = over_cases(of_cases)
        cells = [f"{_mean(score.steps):.2f} / {_mean(score.loss):.3f}" for score in of_cases]
        worst = max(_mean(score.loss) for score in of_cases)
        rows.append([contender, _interval(steps), _interval(loss, 3), f"{worst:.3f}", *cells])
    rows.sort(key=lambda row: float(row[1].partition(" ")[0]))
    return markdown_table(["contender", "steps", "loss at the end", "worst loss", *names], rows)


def _mean(values: Sequence[float]) -> float:
    return geometric_mean(values).mean


def _interval(interval: Interval, digits: int = 2) -> str:
    mean, low, high = interval
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f}–{high:.{digits}f})" if low is not None else "")


@click.command(help=__doc__)
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--optimizer", "optimizers", multiple=True, default=("builtin",), help="May be given several times.")
@click.option("--base-optimizer", default="Adam", show_default=True)
@click.option("--case", "chosen", multiple=True, type=click.Choice(cases.names()), help="Default: all.")
@click.option("--seeds", type=click.IntRange(2), help="The first random seeds only; a claim needs all ten.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("reports/frozen"))
def main(
    data_dir: Path,
    optimizers: Sequence[str],
    base_optimizer: str,
    chosen: Sequence[str],
    seeds: int | None,
    output: Path,
) -> None:
    """Evaluate, and print the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    names = list(chosen) or cases.names()
    cases.check_frozen(names)
    output.mkdir(parents=True, exist_ok=True)
    learned = {Path(source).stem: load_optimizer(source) for source in optimizers}
    found: dict[str, dict[str, Score]] = {}
    for name in names:
        config = replace(cases.case(name, data_dir, output, seeds), base_optimizer=base_optimizer)
        task = load_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
        comparison = compare(config, task, learned)
        found[name] = scores(comparison)
        write_text(output / f"{name}_{base_optimizer}.json", json.dumps(comparison.to_mapping()))
        click.echo(f"\n{name}\n{table(found, [name])}")
    write_text(output / f"scores_{base_optimizer}.json", json.dumps(plain(found)))
    for title, group in _groups(names):
        click.echo(f"\n{title}, over the best baseline of each case (steps / loss at the end)\n{table(found, group)}")


def _groups(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    apart = [name for name in names if name in cases.REGULARISATION]
    groups = [("Cases", [name for name in names if name not in apart]), ("Cases of regularisation", apart)]
    return [(title, group) for title, group in groups if group]


if __name__ == "__main__":
    main()
