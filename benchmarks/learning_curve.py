"""The learning curve of a meta-training: speed-up on a held-out case at each checkpoint of a tracked run.

`python -m benchmarks.learning_curve <run ID> benchmarks/cases/<case>.yaml`. The point at 0 minutes is the same
optimizer untrained. Runs of the base optimizer are trained once and cached, as by `metaopt evaluate`.
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
from metaopt.weights.atomic import write_text
from metaopt.workflows.evaluate_optimizer import compare

from ._measure import publish

_AVERAGE = "EMA 0.98"


class Stage(NamedTuple):
    """The optimizer at one time of its meta-training."""

    updates: int
    minutes: float
    optimizer: GenerativeOptimizer


class Result(NamedTuple):
    """The evaluation of a stage, beside the EMA of the base optimizer."""

    stage: Stage
    candidate: ContenderSummary
    average: ContenderSummary

    @property
    def row(self) -> dict[str, Any]:
        """The row of the table."""
        speed_up = self.candidate.full.speed_up
        return {
            "updates": self.stage.updates,
            "minutes": self.stage.minutes,
            "speed-up": speed_up.mean,
            "low": speed_up.low,
            "high": speed_up.high,
            "never": self.candidate.full.never,
            "early": self.candidate.early.speed_up.mean,
            "final loss": self.candidate.final_loss,
            _AVERAGE: self.average.full.speed_up.mean,
            f"{_AVERAGE}'s loss": self.average.final_loss,
        }


def stages(run_id: str, folder: Path) -> list[Stage]:
    """The untrained optimizer, then one stage per checkpoint of the run."""
    client = connect()
    seconds = client.get_metric_history(run_id, "seconds")
    minutes = accumulate(metric.value / 60 for metric in seconds)
    epochs = (int(metric.value) for metric in client.get_metric_history(run_id, "epoch"))  # a resumed run begins later
    reached = {epoch: (metric.step, total) for epoch, metric, total in zip(epochs, seconds, minutes, strict=True)}
    trained = []
    for artifact in client.list_artifacts(run_id, CHECKPOINTS):
        epoch = int(Path(artifact.path).name.removeprefix("epoch_"))
        (file,) = download_files(run_id, artifact.path, folder)
        trained.append(Stage(*reached[epoch], load_optimizer(str(file))))
    first = trained[0].optimizer
    untrained = get_optimizer_model(type(first).__name__, **first.config.to_mapping()).eval()
    return [Stage(0, 0.0, untrained), *trained]


def evaluate_stage(stage: Stage, config: EvaluateConfig) -> Result:
    """Compare a stage with the base optimizer and its EMA."""
    comparison = at_best_rates(compare(config, stage.optimizer, SilentTracker()))
    contenders = {each.contender: each for each in Summary(comparison).contenders}
    return Result(stage, contenders[comparison.candidate], contenders[_AVERAGE])


@styled()
def draw(results: Sequence[Result], case: str, base: str) -> Figure:
    """Draw the speed-up with its interval over random seeds, against minutes."""
    subtitle = f"{case}: {base}'s steps to its best loss over those with nowcasts, mean and 95 % interval"
    figure, axes = canvas("Speed-up against meta-training", subtitle, 3.2, entries=2)
    (only,) = axes.flat
    minutes = [each.stage.minutes for each in results]
    intervals = [each.candidate.full.speed_up for each in results]
    only.plot(minutes, [interval.mean for interval in intervals], marker="o", color=BLUE, label="with nowcasts")
    if all(interval.low is not None for interval in intervals):
        low, high = ([getattr(interval, end) for interval in intervals] for end in ("low", "high"))
        only.fill_between(minutes, low, high, color=BLUE, alpha=0.15, linewidth=0)
    only.axhline(results[0].average.full.speed_up.mean, color=VERMILION, linestyle="--", label=f"{_AVERAGE} of {base}")
    only.axhline(1.0, linestyle=":", color=MUTED, zorder=1)
    only.set(xlabel="minutes of meta-training", ylabel="speed-up")
    legend(figure, only)
    return figure


@click.command()
@click.argument("run_id")
@click.argument("case", type=click.Path(exists=True, path_type=Path))
@click.option("--lr", type=float, help="Learning rate, in place of those of the case.")
@click.option("--seeds", type=int, help="Random seeds, in place of those of the case.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of cached runs.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results; the figure is beside it.")
def main(
    run_id: str, case: Path, lr: float | None, seeds: int | None, cache_dir: Path | None, output: Path | None
) -> None:
    """Evaluate all checkpoints of a run."""
    given = {"learning_rates": lr and [lr], "seeds": seeds, "cache_dir": cache_dir}
    chosen = {name: value for name, value in given.items() if value is not None}
    quick = {"baselines": "none", "controls": False}
    config = EvaluateConfig.from_mapping({**read_config_file(case), **quick, **chosen})
    with tempfile.TemporaryDirectory() as folder:
        results = [evaluate_stage(stage, config) for stage in stages(run_id, Path(folder))]
    publish(f"learning curve on {case.stem}", [each.row for each in results], output)
    if output is not None:
        figure = draw(results, case.stem, config.base_optimizer)
        write_text(output.with_suffix(".svg"), rendered(figure)["svg"].decode())


if __name__ == "__main__":
    main()
