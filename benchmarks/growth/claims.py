"""All claims about growth, measured and printed by one command: those that hold and those that do not.

    python -m benchmarks.growth.claims --data-dir DIR

DIR has cifar10_images/{train,test} and text/tinystories.txt. The table has one line per claim: its goal, the mean and
the standard deviation over random seeds, and whether the goal is reached. Finished measurements are stored in the
folder of the results, so that an interrupted command goes on; remove the folder after a change of the code. All takes
more than four hours on one core. `--quick` takes minutes, with trainings that are too short to judge anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from metaopt.core.text import counted
from metaopt.growth import actions, blueprints
from metaopt.reinforcement.rewards import Moment, Reward, SpecReward, TwinReward, total

from .._claims import Row, at_most, chosen, each_at_least, measure_and_publish
from .._stored import Stored
from . import controllers, grown, step_cost


@dataclass(frozen=True)
class Plan:
    """Sizes of all measurements.

    Attributes:
        data: folder of the data.
        folder: an existing folder, for what is stored.
        seeds: random seeds of a result [count].
        quick: whether trainings are too short to judge anything.
    """

    data: Path
    folder: Path
    seeds: int
    quick: bool


def networks(name: str, plan: Plan) -> list[Row]:
    """Networks that grow, against their twins."""
    case = replace(grown.CASES[name], epochs=1) if plan.quick else grown.CASES[name]
    compared = grown.compare(name, case, plan.data, plan.seeds, Stored(plan.folder / "grown.jsonl"))
    return [
        at_most(
            f"loss of a network that grew on {name}, over that of its twin: {row['over']}",
            row["goal"],
            row["ratios"],
            f"{row['controller']}, lr {row['lr']}, {case.epochs} epochs",
        )
        for row in compared
    ]


def learned_controller(name: str, alone: bool, plan: Plan) -> list[Row]:
    """A controller trained by PPO, against random and the best fixed schedule.

    Args:
        alone: whether it imitates nothing at first, also in a case in which it does.
    """
    case = controllers.CASES[name]
    if alone:
        case = replace(case, imitate=None)
    if plan.quick:
        case = replace(case, episodes=8, seeds=2, selection=1)
    found = [controllers.compare(name, case, plan.data, plan.folder, seed) for seed in range(plan.seeds)]
    learned = [next(row for row in rows if row["controller"] == "PPO") for rows in found]
    (best,) = {row["controller"] for row in found[0] if row["controller"].startswith("best schedule")}
    claim = f"controller by PPO{' after imitation' if case.imitate else ''} on {name}"
    imitation = f"imitates the {case.imitate} first; " if case.imitate else ""
    sizes = f"{imitation}{case.episodes} episodes, {case.seeds} random seeds of the comparison"
    return [
        each_at_least(
            f"{claim}: paired difference from random, in standard errors",
            controllers.Z_GOAL,
            [row["z over random"] for row in learned],
            f"{sizes}; each figure is one random seed of PPO",
        ),
        each_at_least(
            f"{claim}: share of the best schedule's return",
            controllers.SHARE_GOAL,
            [row["of best schedule"] for row in learned],
            best,
        ),
    ]


def pump(plan: Plan) -> list[Row]:
    """What rewards pay a path that oscillates, over what they pay a straight one with the same ends."""
    oscillating = list(accumulate([-0.5, *[0.4, -0.5] * 8], initial=3.0))
    straight = [3.0 + (oscillating[-1] - 3.0) * index / 17 for index in range(18)]

    def ratio(reward: Reward) -> float:
        paid = [total(reward, [Moment(loss, 2.0) for loss in path]) for path in (oscillating, straight)]
        return paid[0] / paid[1]

    # The best constant loss is below both ends, so that neither path has a bonus at the end.
    spec = ratio(SpecReward(sigma=0.1, baseline_loss=1.6, target_loss=0.5))
    twin = ratio(TwinReward(sigma=0.1, rent=0.0))
    claim = "what {} pays a path that oscillates, over what it pays a steady one with the same ends"
    return [
        Row(claim.format("`spec`"), "2.23", [spec], _result(abs(spec - 2.23) < 0.005)),
        Row(claim.format("`twin`"), "1 ± 1e-9", [twin], _result(abs(twin - 1) <= 1e-9)),
    ]


def outside_package(plan: Plan) -> list[Row]:
    """A blueprint of another package: an action for it, with no other change."""
    known = {action.name for action in actions.actions_of("vector")}
    blueprints.blueprint("vector", "scale", lambda dim: dim * dim, "A linear layer without a bias.")(_scale)
    added = {action.name for action in actions.actions_of("vector")} - known
    return [
        Row(
            "actions that a blueprint of another package adds, without a change here",
            "1",
            [float(len(added))],
            _result(added == {"GERMINATE_SCALE"}),
            "GERMINATE_SCALE of this script; by entry points in tests/contract/test_blueprints.py",
        )
    ]


def cost(plan: Plan) -> list[Row]:
    """CPU time of a training step over that of the host alone."""
    stored, rounds = Stored(plan.folder / "cost.jsonl"), 4 if plan.quick else 40
    rows = []
    for host, (_, topology, _) in step_cost.HOSTS.items():
        task, batch = step_cost.data_of(host)
        for blueprint in ("", *(each.name for each in blueprints.blueprints_of(topology))):
            measure = partial(step_cost.measured, task, batch, host, blueprint, rounds)
            found: dict[str, Any] = stored.of({"host": host, "blueprint": blueprint, "rounds": rounds}, measure)
            claim = f"CPU time of a step of {host} over that of the host alone: {found['slot']}"
            spread = f"quartiles {found['least']:.2f} to {found['most']:.2f}, no random seeds"
            rows.append(at_most(claim, found["goal"], [found["ratio"]], spread))
    return rows


CLAIMS: Mapping[str, Callable[[Plan], list[Row]]] = {
    "pump": pump,
    "outside-package": outside_package,
    "cost": cost,
    **{f"grown-{name}": partial(networks, name) for name in grown.CASES},
    **{f"controllers-{name}": partial(learned_controller, name, False) for name in controllers.CASES},
    **{
        f"controllers-{name}-alone": partial(learned_controller, name, True)
        for name, case in controllers.CASES.items()
        if case.imitate
    },
}
"""What measures the claims, by a short name, in the order of the table."""


def _scale(dim: int) -> nn.Module:
    return nn.Linear(dim, dim, bias=False)


def _result(holds: bool) -> str:
    return "reached" if holds else "missed"


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds of each result.")
@click.option("--quick", is_flag=True, help="Everything in minutes, with trainings too short to judge anything.")
@click.option("--only", default=",".join(CLAIMS), show_default=True, help="Claims, by commas.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("claims"), show_default=True, help="Folder.")
def main(data_dir: Path, seeds: int, quick: bool, only: str, output: Path) -> None:
    """Measure all claims, print them, and write claims.json and claims.md."""
    names = chosen(only, CLAIMS)
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    plan = Plan(data_dir, output, seeds, quick)
    measures = [partial(CLAIMS[name], plan) for name in names]
    measure_and_publish(f"Claims about growth, {counted(seeds, 'random seed')}", measures, output, quick=quick)


if __name__ == "__main__":
    main()
