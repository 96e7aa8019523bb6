"""Trained generative optimizers and an EMA on trainings that none of them has seen: steps to Adam's lowest loss.

For example, after `bash benchmarks/nested/optimizers/make.sh DATA`, which trains a HopeOptimizer and a
PerceiverOptimizer on the same problems, with equally many updates:

    python -m benchmarks.nested.hope_optimizer --data-dir DATA --optimizer hope=FILE --optimizer perceiver=FILE

Each contender is taken at the best of the case's learning rates. `speed-up` is in steps, with the range of its 95 %
interval; `seconds` is the same in time, with forecasts and guard. `end` is the final loss over that of the EMA, and
`error` the squared error of a single forecast over that of keeping the weights.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch

from metaopt.core.config import read_config_file
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.results import HOLD
from metaopt.evaluation.runner import PairedEvaluation
from metaopt.evaluation.summary import Summary, at_best_rates
from metaopt.generative import GenerativeOptimizer
from metaopt.generative.files import load_optimizer
from metaopt.tasks import load_task, task_config

from .._measure import publish

EMA = "EMA 0.98"
CASES = "digits_mlp,digits_targetcnn,digits_vit,text_gpt,mnist_convnet"
_FOLDERS = {"text_gpt": "text/tinystories.txt", "mnist_convnet": "."}
_CASES = Path(__file__).parents[1] / "cases"


def measure(
    case: str, optimizers: dict[str, GenerativeOptimizer], data_dir: Path, seeds: int, steps: int, cache: Path
) -> list[dict[str, Any]]:
    """The rows of one case, one for each contender."""
    values = {**read_config_file(_CASES / f"{case}.yaml"), "seeds": seeds, "baselines": "none", "controls": False}
    config = EvaluateConfig.from_mapping({**values, "cache_dir": str(cache)})
    folder = data_dir / _FOLDERS[case] if case in _FOLDERS else None
    config = replace(config, data_dir=folder, steps=min(steps, config.steps))
    task = load_task(config.task, **task_config(config.task, config.task_options, folder))
    summary = Summary(at_best_rates(PairedEvaluation(config, task, optimizers).compare()))
    end = summary.of(EMA).final_loss
    return [_row(case, summary, name, end) for name in (HOLD, EMA, *optimizers)]


def _row(case: str, summary: Summary, name: str, end: float) -> dict[str, Any]:
    contender = summary.of(name)
    speed_up = contender.full.speed_up
    return {
        "case": case,
        "contender": {HOLD: "Adam alone"}.get(name, name),
        "speed-up": speed_up.mean,
        "interval": f"{speed_up.low:.2f}–{speed_up.high:.2f}",
        "seconds": contender.full.speed_up_in_time.mean,
        "end": contender.final_loss / end,
        "error": math.nan if contender.error is None else contender.error,
    }


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The geometric means over all cases."""
    contenders = dict.fromkeys(row["contender"] for row in rows)
    columns = ("speed-up", "seconds", "end", "error")
    return [
        {"case": "all", "contender": name, "interval": ""}
        | {each: math.exp(fmean(math.log(row[each]) for row in rows if row["contender"] == name)) for each in columns}
        for name in contenders
    ]


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True, help="MNIST/raw and text/.")
@click.option("--optimizer", "optimizers", multiple=True, required=True, metavar="NAME=FILE", help="Several times.")
@click.option("--cases", default=CASES, show_default=True, help="Names of benchmarks/cases, by commas.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds [count].")
@click.option("--steps", default=800, show_default=True, help="Largest budget of a training [steps].")
@click.option("--cache-dir", type=click.Path(path_type=Path), default=Path("checkpoints/.evaluations"))
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(
    data_dir: Path,
    optimizers: tuple[str, ...],
    cases: str,
    seeds: int,
    steps: int,
    cache_dir: Path,
    output: Path | None,
) -> None:
    """Train every contender on every case, and print how many steps each needs."""
    logging.getLogger("metaopt").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    loaded = {name: load_optimizer(source) for name, _, source in (each.partition("=") for each in optimizers)}
    rows = [row for case in cases.split(",") for row in measure(case, loaded, data_dir, seeds, steps, cache_dir)]
    order = list(rows[0])
    every = [*rows, *({key: row[key] for key in order} for row in means(rows))]
    publish(f"HopeOptimizer, {seeds} random seeds, at most {steps} steps", every, output)


if __name__ == "__main__":
    main()
