"""Networks that grow against their twins: the host alone, and a network of the final size from the start.

    python -m benchmarks.growth.grown --data-dir DIR

DIR has cifar10_images/{train,test} and text/tinystories.txt. Each case trains its host at several learning rates with
another random seed, and all networks at the best of them. Ratios are those of validation losses at the end, with equal
random seeds, batches and steps; `std` is over random seeds. Finished trainings are stored, so that an interrupted
command goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.recording.twins import train_twins
from metaopt.trajectories import Trajectory

from .._measure import publish
from .._stored import Stored

_TUNING_SEED = 1000
_RATES = ("1e-3", "3e-3", "1e-2")


@dataclass(frozen=True)
class Case:
    """A host, its data, and how it grows.

    Attributes:
        goals: highest ratios of the losses to those of the static twin, and of the twin of equal size.
    """

    task: str
    data: str
    target: str
    epochs: int
    controller: str
    goals: tuple[float, float]
    batch_size: int = 64
    task_options: Mapping[str, Any] = field(default_factory=dict)
    target_options: Mapping[str, Any] = field(default_factory=dict)
    growth: Mapping[str, Any] = field(default_factory=dict)


CASES: Mapping[str, Case] = {
    "cifar": Case(
        "image-folder",
        "cifar10_images",
        "HostCNN",
        epochs=24,
        controller="schedule:conv@0.05",
        goals=(0.97, 1.05),
        task_options={"image_size": 32, "shift": 2, "flip": True},
    ),
    "tinystories": Case(
        "text",
        "text/tinystories.txt",
        "TransformerHost",
        epochs=6,
        controller="schedule:mlp@0.05",
        goals=(0.98, 1.05),
        batch_size=16,
        task_options={"tokenizer": "characters", "block_size": 64},
        target_options={"n_layer": 2, "n_head": 4, "n_embd": 16},
    ),
}


def ratios(case: Case, data_dir: Path, seed: int, lr: str, folder: Path) -> dict[str, float]:
    """The validation loss of a network that grew, and its ratios to those of its twins."""
    config = _config(case, data_dir, seed, lr, folder, twins=True)
    folders = train_targets(config, SilentTracker())
    loss = Trajectory.open(folders[0]).losses(-1)["val_loss"]
    return {"loss": loss, **train_twins(config, folders, SilentTracker())}


def static_loss(case: Case, data_dir: Path, lr: str, folder: Path) -> float:
    """The validation loss of the host alone, from a random seed of its own."""
    config = _config(case, data_dir, _TUNING_SEED, lr, folder, controller="wait")
    return Trajectory.open(train_targets(config, SilentTracker())[0]).losses(-1)["val_loss"]


def _config(case: Case, data_dir: Path, seed: int, lr: str, folder: Path, **more: Any) -> TrainTargetConfig:
    return TrainTargetConfig(**{
        "run_name": "grown",
        "task": case.task,
        "data_dir": data_dir / case.data,
        "task_options": dict(case.task_options),
        "target_model": case.target,
        "target_options": dict(case.target_options),
        "lr": lr,
        "batch_size": case.batch_size,
        "epochs": case.epochs,
        "seed": seed,
        "controller": case.controller,
        "growth_options": dict(case.growth),
        "trajectory_dir": folder / "trajectories",
        "checkpoint_dir": folder / "checkpoints",
        "checkpoint_every": 1000,
        "keep_last": 2,
        "threads": 1,
        **more,
    })  # fmt: skip


def compare(name: str, case: Case, data_dir: Path, seeds: int, stored: Stored) -> list[dict[str, Any]]:
    """Train all networks of a case; a row for each of both twins.

    Args:
        name: name of the case in the rows.
        stored: finished trainings, which are not repeated.
    """
    settings = {"case": repr(case)}

    def measured(what: str, **values: Any) -> Any:
        def measure() -> Any:
            with TemporaryDirectory() as folder:
                return (static_loss if what == "static" else ratios)(case, data_dir, folder=Path(folder), **values)

        return stored.of({**settings, "what": what, **values}, measure)

    lr = min(_RATES, key=lambda rate: measured("static", lr=rate))
    found = [measured("ratios", seed=seed, lr=lr) for seed in range(seeds)]
    rows = []
    for kind, goal in zip(("static", "equal_size"), case.goals, strict=True):
        values = [each.get(f"loss_over_{kind}", nan) for each in found]
        rows.append(
            {
                "case": name,
                "controller": case.controller,
                "over": kind.replace("_", " "),
                "lr": lr,
                "loss": fmean(each["loss"] for each in found),
                "ratio": fmean(values),
                "std": stdev(values) if seeds > 1 else 0.0,
                "worst": max(values),
                "goal": goal,
                "ratios": values,
            }
        )
    return rows


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data.")
@click.option("--case", "names", default=",".join(CASES), show_default=True, help="Cases, by commas.")
@click.option("--controller", default="", help="Instead of the controller of the case.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds of each result.")
@click.option("--stored", type=click.Path(path_type=Path), help="File of finished trainings.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(data_dir: Path, names: str, controller: str, seeds: int, stored: Path | None, output: Path | None) -> None:
    """Train all networks and print the ratios of their losses."""
    torch.set_num_threads(1)
    known, rows = Stored(stored), list[dict[str, Any]]()
    for name in names.split(","):
        case = replace(CASES[name], controller=controller or CASES[name].controller)
        rows += compare(name, case, data_dir, seeds, known)
    table = [{key: value for key, value in row.items() if key != "ratios"} for row in rows]
    publish(f"Networks that grow against their twins, {seeds} random seeds", table, output)


if __name__ == "__main__":
    main()
