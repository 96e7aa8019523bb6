"""Components of online meta-training that are like the recorded trainings."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from ..core.config import Range
from ..core.devices import CPU
from ..core.errors import InvalidConfig, TrajectoryError
from ..trajectories import Trajectory
from ..weights.facts import COUNT, FINITE, MAPPING, TARGET_RUN, TEXT, first_violation
from .mixture import ComponentConfig, MixtureComponent, check_rows
from .problem import InnerProblem, problem_key
from .trained import problem_name

_ADVICE = "Train on the recordings without rounds, or give a mixture"
_TRAINING = {**TARGET_RUN, "base_optimizer": TEXT, "base_optimizer_options": MAPPING, "lr": FINITE, "batch_size": COUNT}


def recorded_components(
    trajectories: Sequence[Trajectory],
    data_dir: Path | None = None,
    *,
    trusted: bool = False,
    trusted_names: Collection[str] = (),
    device: torch.device = CPU,
) -> list[MixtureComponent]:
    """One component for each network and task of the recordings.

    It has as many trainings as were recorded, from random initial weights, and learning rates from the lowest to the
    highest recorded one.

    Args:
        trajectories: those of phase 1.
        data_dir: folder of the task's data, if it has moved.
        trusted: whether the recordings may name networks by dotted paths, whose code is imported.
        trusted_names: dotted paths that may be imported in any case.
        device: device of the inner trainings.
    Raises:
        InvalidConfig: inner trainings would differ from the recorded ones.
        MetaoptError: the problem of a trajectory cannot be rebuilt, as for `InnerProblem.from_trajectory`.
    """
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        _check(trajectory)
        groups[problem_key(trajectory)].append(trajectory)
    components, names = [], Counter[str]()
    for group in groups.values():
        config = _config(group)
        problem = InnerProblem.from_trajectory(
            group[0], data_dir, trusted=trusted, trusted_names=trusted_names, device=device, advice=_ADVICE
        )
        check_rows(config, config.target_options)  # it builds the network, which only now is known to be trusted
        problem.check_inner_trainings()
        name = problem_name(config.target_model, config.task)
        names[name] += 1
        components.append(MixtureComponent(name if names[name] == 1 else f"{name} {names[name]}", config, problem))
    return components


def _check(trajectory: Trajectory) -> None:
    """Check that an inner training can be like a recorded one: Adam on all weights of a network that keeps its size.

    Raises:
        TrajectoryError: its facts do not describe the training.
        InvalidConfig: it was another one.
    """
    run, difference = trajectory.run, None
    if violation := first_violation(run, _TRAINING):
        raise TrajectoryError(f"the facts of {trajectory.folder} do not describe its training: {violation}. {_ADVICE}")
    if run["base_optimizer"] != "Adam" or run["base_optimizer_options"]:
        options = f" and {run['base_optimizer_options']}" if run["base_optimizer_options"] else ""
        difference = f"was recorded with {run['base_optimizer']}{options}, but inner trainings are those of plain Adam"
    elif len(trajectory.segments) > 1 or trajectory.growth:
        difference = "is of a network that grew, but inner trainings keep its size"
    elif trajectory.frozen():
        difference = "has frozen weights, but inner trainings train all of them"
    if difference is not None:
        raise InvalidConfig(f"{trajectory.folder} {difference}. {_ADVICE}")


def _config(trajectories: Sequence[Trajectory]) -> ComponentConfig:
    run, rates = trajectories[0].run, [float(each.run["lr"]) for each in trajectories]
    return ComponentConfig(
        task=run["task"],
        task_options={name: value for name, value in run["task_config"].items() if name != "data_dir"},
        target_model=run["target_model"],
        target_options=run["target_config"],
        lr=Range(min(rates), max(rates)),
        batch_size=run["batch_size"],
        rows=len(trajectories),
    )
