"""Meta-training with and without a curriculum, at an equal number of updates.

Two kinds of networks are trained on handwritten digits and recorded. A small Perceiver is trained on pairs of their
snapshots: with a curriculum, which begins with short horizons of the smaller network and goes on to all pairs, and on
all pairs from the start. Both have the same initial weights, batches of the same size and as many updates, and are
validated on the same pairs of held-out trainings, of all horizons and both sizes.

`python -m benchmarks.operations.curriculum` trains with three random seeds, in minutes.
"""

import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from metaopt.core.config import Range
from metaopt.core.tracker import SilentTracker
from metaopt.metatraining.trainer import MetaTraining, TrainOptimizerConfig, prepared_training
from metaopt.recording.record import TrainTargetConfig, train_targets

from .._measure import publish

_WIDTHS = {"small": 8, "large": 48}
"""Hidden units of the recorded networks, by run name: 610 and 3,610 weights."""

_STEPS_PER_EPOCH = 15
_METRICS = ("val_objective", "val_relative_error", "val_log_loss_change")
_CURRICULUM = """\
metric: relative_error
checkpoints: 3
advance_at: {advance_at}
step_back_at: {step_back_at}
stages:
- {{horizon: 30, weights: 1000}}
- {{horizon: 90}}
- {{}}
"""


class _Enough(Exception):
    """The updates of a meta-training are made."""


class _Budget:
    """Ends a meta-training after a number of updates, also within an epoch."""

    def __init__(self, training: MetaTraining, updates: int) -> None:
        self._training, self._updates = training, updates

    def update(self, count: int = 1, **figures: float) -> None:
        """Called after each update."""
        if self._training.state.step >= self._updates:
            raise _Enough

    def skip(self, count: int) -> None:
        """Called for updates of an earlier process."""


def record(folder: Path, runs: int, epochs: int) -> None:
    """Record the trainings of both networks."""
    for name, width in _WIDTHS.items():
        config = TrainTargetConfig(
            run_name=name,
            target_model="MLP",
            target_options={"widths": [width]},
            runs=runs,
            vectorize=runs,
            lr=Range(1e-3, 3e-3),
            epochs=epochs,
            snapshot_every=_STEPS_PER_EPOCH,
            checkpoint_every=epochs,
            trajectory_dir=folder,
            checkpoint_dir=folder / "checkpoints",
        )
        train_targets(config, SilentTracker())


def meta_train(folder: Path, curriculum: Path | None, updates: int, seed: int) -> dict[str, Any]:
    """Train an optimizer; returns its validation metrics, and at which update each stage began."""
    config = TrainOptimizerConfig(
        run_name=",".join(_WIDTHS),
        checkpoint_name=f"{seed}-{'all' if curriculum is None else 'stages'}",
        optimizer_options={"dim": 32, "num_latents": 16, "latent_dim": 32, "hidden": 64},
        epochs=updates,
        pairs_per_epoch=256,
        batch_size=8,
        lr=2e-3,
        average=0.98,
        seed=seed,
        curriculum=curriculum,
        trajectory_dir=folder,
        checkpoint_dir=folder / "checkpoints",
    )
    started = time.perf_counter()
    stages: dict[int, int] = {}
    with prepared_training(config) as training:
        state, source = training.state, training.source
        budget = _Budget(training, updates)
        try:
            while state.step < updates:
                if state.curriculum is not None:
                    stages[state.step] = state.curriculum.number
                source.train(state, budget)
                if state.curriculum is not None:
                    state.curriculum.observe(state.step, source.result(state.curriculum, source.validate(state)))
                state.epoch += 1
        except _Enough:
            pass
        metrics = source.validate(state)
    return {
        "random seed": seed,
        "data": "all" if curriculum is None else "stages",
        "updates": state.step,
        **{name.removeprefix("val_").replace("_", " "): metrics[name] for name in _METRICS},
        "minutes": (time.perf_counter() - started) / 60,
        "stages": _moves(stages) or "–",
    }


def _moves(stages: dict[int, int]) -> str:
    """Each stage after the update at which it began: `1 2@96 3@192`."""
    moves: list[str] = []
    last = 0
    for step, number in stages.items():
        if number != last:
            moves.append(f"{number}@{step}" if step else str(number))
        last = number
    return " ".join(moves)


@click.command()
@click.option("--updates", default=1500, show_default=True, help="Updates of each meta-training [count].")
@click.option("--seeds", default=3, show_default=True, help="Random seeds [count].")
@click.option("--first-seed", default=0, show_default=True, help="The first random seed.")
@click.option("--runs", default=8, show_default=True, help="Recorded trainings of each network [count].")
@click.option("--epochs", default=20, show_default=True, help="Epochs of a recorded training.")
@click.option("--advance-at", default=0.7, show_default=True, help="Relative error at which a stage advances.")
@click.option("--step-back-at", default=1.0, show_default=True, help="Relative error at which it steps back.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(
    updates: int,
    seeds: int,
    first_seed: int,
    runs: int,
    epochs: int,
    advance_at: float,
    step_back_at: float,
    output: Path | None,
) -> None:
    """Compare meta-training on stages with meta-training on all pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder, runs, epochs)
        stages = folder / "curriculum.yaml"
        stages.write_text(_CURRICULUM.format(advance_at=advance_at, step_back_at=step_back_at), encoding="utf-8")
        rows = [
            meta_train(folder, curriculum, updates, seed)
            for seed in range(first_seed, first_seed + seeds)
            for curriculum in (None, stages)
        ]
    for data in ("all", "stages"):
        own = [row for row in rows if row["data"] == data]
        means = {
            name: fmean(row[name] for row in own) if isinstance(value, float) else value
            for name, value in own[0].items()
        }
        rows.append({**means, "random seed": "mean", "stages": "–"})
    publish("final validation on held-out trainings, all horizons and sizes; lower is better", rows, output)


if __name__ == "__main__":
    main()
