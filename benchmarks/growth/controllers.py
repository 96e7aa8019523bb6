"""Controllers of growth against each other: learned by PPO, random, heuristic, and the best of all fixed schedules.

    python -m benchmarks.growth.controllers --data-dir DIR --case digits --case cifar --case tinystories

DIR has cifar10_images/{train,test} and text/tinystories.txt. A policy imitates the best schedule where that helps
(`--imitate none`: nothing) and is trained by PPO on its own random seeds. The best schedule is chosen on others, and
all controllers are compared on random seeds that nothing was trained or chosen on: equal initial weights and batches,
so differences are paired. `return` is in units of σ, the typical change of the loss from one decision to the next; 0
is a run without growth. `z` is a paired difference in its standard errors. A policy that equals the schedule that it
imitates has a share of 1, and is not better: then `z over best` is 0. Twins, checkpoints and finished episodes are
stored, so that an interrupted command goes on; remove the folder after a change of the code.

Known negative: the best fixed schedule is hard to beat where the same blueprint helps at the same time in every run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import click
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.reinforcement.comparison import Play, Played, best_schedule, play, played, schedules
from metaopt.reinforcement.config import BEST_SCHEDULE, TrainControllerConfig
from metaopt.reinforcement.problem import Problem
from metaopt.reinforcement.scored_episode import Result
from metaopt.reinforcement.training import train_controller
from metaopt.reinforcement.twins import Twins

from .._measure import publish
from .._stored import Stored

Z_GOAL = 3.0
SHARE_GOAL = 0.9

_GROWTH = {"interval": 20, "train_steps": 20, "blend_steps": 40, "probation_steps": 20, "embargo_steps": 20}
_AFTER_IMITATION = {"policy_lr": 1e-3, "entropy": 0.0}  # with the defaults one update undoes the imitation


@dataclass(frozen=True)
class Case:
    """A problem, and how much is played.

    Attributes:
        options: options of `EpisodeConfig`.
        episodes: episodes of training; a multiple of 8, the environments side by side [count].
        seeds: random seeds of the comparison [count].
        selection: random seeds that choose the best schedule [count].
        imitate: controller that the policy imitates at first; "best schedule" is that of the comparison, None nothing.
    """

    options: Mapping[str, Any]
    episodes: int
    seeds: int
    selection: int
    imitate: str | None = None


CASES: Mapping[str, Case] = {
    "digits": Case(
        {"task": "digits", "steps": 120, "growth_options": {name: steps // 2 for name, steps in _GROWTH.items()}},
        episodes=160,
        seeds=20,
        selection=5,
        imitate=BEST_SCHEDULE,
    ),
    "cifar": Case(
        {
            "task": "image-folder",
            "data_dir": "cifar10_images",
            "task_options": {"image_size": 16},
            "steps": 300,
            "growth_options": _GROWTH,
        },
        episodes=96,
        seeds=10,
        selection=3,
    ),
    "tinystories": Case(
        {
            "task": "text",
            "data_dir": "text/tinystories.txt",
            "task_options": {"tokenizer": "characters", "block_size": 32},
            "target_model": "TransformerHost",
            "target_options": {"n_layer": 2, "n_head": 2, "n_embd": 8},
            "batch_size": 16,
            "steps": 400,
            "growth_options": {**_GROWTH, "examples": 128},
        },
        episodes=96,
        seeds=20,
        selection=5,
        imitate=BEST_SCHEDULE,
    ),
}


def config_of(name: str, case: Case, data_dir: Path | None, folder: Path, seed: int) -> TrainControllerConfig:
    """The training of a controller for a case.

    Args:
        name: name of the case.
        seed: random seed of PPO.
    """
    settings = dict(case.options)
    if "data_dir" in settings:
        if data_dir is None:
            raise click.UsageError(f"the case {name} needs --data-dir")
        settings["data_dir"] = data_dir / settings["data_dir"]
    return TrainControllerConfig.from_mapping(
        {
            **settings,
            "episodes": case.episodes,
            "seed": seed,
            "device": "cpu",
            **({} if case.imitate is None else {"imitate": case.imitate, **_AFTER_IMITATION}),
            "run_name": _run_name(name, case, seed),
            "checkpoint_dir": folder,
            "twin_dir": folder / "twins",
        }
    )


def _run_name(name: str, case: Case, seed: int) -> str:
    return f"{name}_{seed}" if case.imitate is None else f"{name}_{seed}_imitates"


def trained_policy(config: TrainControllerConfig) -> Path:
    """The file of the policy of a configuration; a training that was interrupted goes on."""
    checkpoints = config.checkpoint_folder.glob("controller_rollout_*.safetensors")
    last = max(checkpoints, key=lambda path: int(path.stem.rpartition("_")[2]), default=None)
    return train_controller(config, SilentTracker(), last).file


def player(config: TrainControllerConfig, problem: Problem, stored: Stored) -> Play:
    """Plays episodes, or looks them up if they are stored."""
    twins = Twins(problem, config.twin_dir)

    def play_one(controller: str, random_seed: int) -> Result:
        settings = {"problem": problem.facts, "reward": [config.reward, config.rent], "random_seed": random_seed}
        is_file = Path(controller).is_file()
        settings["controller"] = hashlib.sha256(Path(controller).read_bytes()).hexdigest() if is_file else controller
        return Result(*stored.of(settings, lambda: list(play(problem, twins, controller, random_seed))))

    return play_one


def rows_of(names: Mapping[str, str], seeds: range, play_one: Play) -> list[dict[str, Any]]:
    """A row for each controller.

    Args:
        names: what `--controller` takes, by the name in the table; "random" and "best schedule" among them. Shares of a
            best schedule that is no better than waiting are NaN.
    """
    found: dict[str, Played] = {name: played(value, seeds, play_one) for name, value in names.items()}
    random, best = found["random"], found["best schedule"]
    return [
        {
            "controller": name if names[name] == name or name == "PPO" else f"{name}: {names[name]}",
            "return": each.mean_return,
            "± s.e.": each.standard_error,
            "z over random": each.over(random) if each is not random else 0.0,
            "of best schedule": each.mean_return / best.mean_return if best.mean_return > 0 else nan,
            "z over best": each.over(best) if each is not best else 0.0,
            "loss / static": each.loss_over_twin,
            "grown": each.grown,
        }
        for name, each in found.items()
    ]


def compare(name: str, case: Case, data_dir: Path | None, folder: Path, seed: int) -> list[dict[str, Any]]:
    """Train a controller for a case, and compare it with controllers that learn nothing: a row for each.

    Args:
        name: name of the case.
        folder: an existing folder, for what is stored.
        seed: random seed of PPO.
    """
    config = config_of(name, case, data_dir, folder, seed)
    problem = Problem(config)
    play_one = player(config, problem, Stored(folder / "episodes.jsonl"))
    best = best_schedule(schedules(problem), config.selection_seeds(case.selection), play_one)
    policy = trained_policy(replace(config, imitate=best) if config.imitate == BEST_SCHEDULE else config)
    names = {"PPO": str(policy), "best schedule": best, **{each: each for each in ("heuristic", "random", "wait")}}
    rows = rows_of(names, config.evaluation_seeds(case.seeds), play_one)
    title = f"{config.title}, {config.steps} steps, {config.decisions} decisions, {case.seeds} random seeds"
    publish(title, rows, folder / f"{_run_name(name, case, seed)}.json")
    return rows


def verdict(rows: list[dict[str, Any]]) -> str:
    """Whether the learned controller reaches the goals."""
    (row,) = (row for row in rows if row["controller"] == "PPO")
    better = "reached" if row["z over random"] > Z_GOAL else "missed"
    share = "reached" if row["of best schedule"] >= SHARE_GOAL else "missed"
    return (
        f"over random: {row['z over random']:.1f} standard errors (goal > {Z_GOAL:g}, {better}); share of the best "
        f"schedule's return: {row['of best schedule']:.2f} (goal ≥ {SHARE_GOAL}, {share})"
    )


@click.command()
@click.option("--case", "names", multiple=True, type=click.Choice([*CASES]), default=("digits",), show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), help="Folder of the data.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("growth_results"), show_default=True)
@click.option("--episodes", type=int, help="Episodes of training [count]; by default those of the case.")
@click.option("--seeds", type=int, help="Random seeds of the comparison [count]; by default those of the case.")
@click.option("--selection", type=int, help="Random seeds that choose the best schedule [count]; likewise.")
@click.option("--imitate", help="As of train-controller, or none; by default that of the case.")
@click.option("--seed", default=0, show_default=True, help="Random seed of PPO.")
def main(
    names: tuple[str, ...],
    data_dir: Path | None,
    folder: Path,
    episodes: int | None,
    seeds: int | None,
    selection: int | None,
    imitate: str | None,
    seed: int,
) -> None:
    """Train a controller for each case, and compare it with controllers that learn nothing."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        case = CASES[name]
        case = Case(
            case.options,
            episodes or case.episodes,
            seeds or case.seeds,
            selection or case.selection,
            None if imitate == "none" else imitate or case.imitate,
        )
        click.echo(verdict(compare(name, case, data_dir, folder, seed)))


if __name__ == "__main__":
    main()
