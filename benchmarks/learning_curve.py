"""How the speed-up on a held-out case grows with meta-training: each checkpoint of a tracked run, judged.

`python -m benchmarks.learning_curve <run ID> benchmarks/cases/<case>.yaml`. At 0 minutes stands the same optimizer
untrained. Twins of the base optimizer are trained once and kept, as by `metaopt evaluate`.
"""

import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import click
from matplotlib.figure import Figure

from metaopt import GenerativeOptimizer, get_optimizer_model, load_optimizer
from metaopt.core.config import read_config_file
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.summary import ContenderSummary, Summary, at_best_rates
from metaopt.figures import canvas, legend, rendered, styled
from metaopt.figures.colours import BLUE, MUTED, VERMILION
from metaopt.tracking import CHECKPOINTS, connect, download_files
from metaopt.weights.files import write_text
from metaopt.workflows.evaluate_optimizer import compare

from ._measure import publish

_AVERAGE = "EMA 0.98"


class Stage(NamedTuple):
    """An optimizer as it was at some time of its training."""

    updates: int
    minutes: float
    optimizer: GenerativeOptimizer


class Judged(NamedTuple):
    """What an evaluation found of it, and of a running average beside it."""

    stage: Stage
    ours: ContenderSummary
    average: ContenderSummary

    @property
    def row(self) -> dict[str, Any]:
        """A line of the table."""
        speed_up = self.ours.full.speed_up
        return {
            "updates": self.stage.updates,
            "minutes": self.stage.minutes,
            "speed-up": speed_up.mean,
            "low": speed_up.low,
            "high": speed_up.high,
            "never": self.ours.full.never,
            "early": self.ours.early.speed_up.mean,
            "final loss": self.ours.final_loss,
            _AVERAGE: self.average.full.speed_up.mean,
            f"{_AVERAGE}'s loss": self.average.final_loss,
        }


def stages(run_id: str, folder: Path) -> list[Stage]:
    """The untrained optimizer, and one for each round or epoch that left a checkpoint with the run."""
    client = connect()
    took = client.get_metric_history(run_id, "seconds")
    minutes = accumulate(metric.value / 60 for metric in took)
    epochs = (int(metric.value) for metric in client.get_metric_history(run_id, "epoch"))  # a resumed run begins later
    reached = {epoch: (metric.step, passed) for epoch, metric, passed in zip(epochs, took, minutes, strict=True)}
    trained = []
    for kept in client.list_artifacts(run_id, CHECKPOINTS):
        number = int(Path(kept.path).name.removeprefix("epoch_"))
        (file,) = download_files(run_id, kept.path, folder)
        trained.append(Stage(*reached[number], load_optimizer(str(file))))
    first = trained[0].optimizer
    untrained = get_optimizer_model(type(first).__name__, **first.config.to_mapping()).eval()
    return [Stage(0, 0.0, untrained), *trained]


def judge(stage: Stage, config: EvaluateConfig) -> Judged:
    """Evaluate one of them."""
    comparison = at_best_rates(compare(config, stage.optimizer, SilentTracker()))
    standings = {standing.contender: standing for standing in Summary(comparison).standings}
    return Judged(stage, standings[comparison.judged], standings[_AVERAGE])


@styled()
def drawn(judged: Sequence[Judged], case: str, base: str) -> Figure:
    """The speed-up with its interval over random seeds, against minutes."""
    subtitle = f"{case}: {base}'s steps to its best loss over those with nowcasts, mean and 95 % interval"
    figure, axes = canvas("Speed-up against meta-training", subtitle, 3.2, entries=2)
    (only,) = axes.flat
    minutes = [each.stage.minutes for each in judged]
    intervals = [each.ours.full.speed_up for each in judged]
    only.plot(minutes, [interval.mean for interval in intervals], marker="o", color=BLUE, label="with nowcasts")
    if all(interval.low is not None for interval in intervals):
        low, high = ([getattr(interval, end) for interval in intervals] for end in ("low", "high"))
        only.fill_between(minutes, low, high, color=BLUE, alpha=0.15, linewidth=0)
    only.axhline(judged[0].average.full.speed_up.mean, color=VERMILION, linestyle="--", label=f"{_AVERAGE} of {base}")
    only.axhline(1.0, linestyle=":", color=MUTED, zorder=1)
    only.set(xlabel="minutes of meta-training", ylabel="speed-up")
    legend(figure, only)
    return figure


@click.command()
@click.argument("run_id")
@click.argument("case", type=click.Path(exists=True, path_type=Path))
@click.option("--lr", type=float, help="Learning rate, in place of those of the case.")
@click.option("--seeds", type=int, help="Random seeds, in place of those of the case.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of finished twins.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures, and a drawing beside it.")
def main(
    run_id: str, case: Path, lr: float | None, seeds: int | None, cache_dir: Path | None, output: Path | None
) -> None:
    """Judge all checkpoints of a run."""
    given = {"learning_rates": lr and [lr], "seeds": seeds, "cache_dir": cache_dir}
    chosen = {name: value for name, value in given.items() if value is not None}
    quick = {"baselines": "none", "controls": False}
    config = EvaluateConfig.from_mapping({**read_config_file(case), **quick, **chosen})
    with tempfile.TemporaryDirectory() as folder:
        judged = [judge(stage, config) for stage in stages(run_id, Path(folder))]
    publish(f"learning curve on {case.stem}", [each.row for each in judged], output)
    if output is not None:
        figure = drawn(judged, case.stem, config.base_optimizer)
        write_text(output.with_suffix(".svg"), rendered(figure)["svg"].decode())


if __name__ == "__main__":
    main()
