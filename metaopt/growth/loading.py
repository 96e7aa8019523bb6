"""Controllers by name: those without a policy, policy files, and registered policies; and the driver for a training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.devices import device_of
from ..core.errors import InvalidConfig
from ..core.registry import load_path
from ..core.rng import generator
from ..core.text import shown
from ..generative.sources import source_with_parents
from ..nested.levels import has_slow_levels
from ..nowcast import Nowcast, NowcastPolicy
from ..tasks import Task
from ..trajectories.origin import Parent
from ..trajectories.parents import file_parents
from .actions import Action, actions_of, topology_of
from .blueprints import blueprint_of
from .config import GrowthConfig
from .controllers import Controller, built_in
from .driver import Driver
from .growth import Growth
from .policy import Policy, load_policy

_NEVER = 2**40  # intervals
_FILE_FROM_MLFLOW = "metaopt.tracking:policy_file"  # imported lazily: importing MLflow takes seconds
_REGISTERED_PARENT = "metaopt.tracking:registered_parent"


def driver_for(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    controller: str,
    options: Mapping[str, Any],
    seed: int,
    total_steps: int,
) -> Driver:
    """A driver that lets a controller decide about the growth of a network.

    Args:
        controller: "wait", "random", "heuristic", a schedule, a policy file, or `models:/<name>@<alias>`.
        options: settings of growth that differ from those of the policy, or from the defaults.
        seed: random seed of the training.
        total_steps: steps of the whole training [steps].
    Raises:
        InvalidConfig: the network cannot grow, an option is invalid, or the policy has other actions.
        UnknownName: there is no such controller, tap or blueprint.
        FileFormatError: the policy file is damaged.
    """
    if has_slow_levels(model):
        raise InvalidConfig(f"{type(model).__name__} has levels with periods above 1, which do not grow; set them to 1")
    policy, parents = _policy(controller)
    config = GrowthConfig.from_mapping({**(policy.growth if policy else {}), **options})
    if config.forecaster:
        forecaster, used = source_with_parents(config.forecaster)
        optimizer = _with_forecaster(model, optimizer, task, config, seed, forecaster)
        parents += used
    growth = Growth(model, optimizer, task, config, seed)
    actions = actions_of(topology_of(growth), config.horizons if growth.can_nowcast else ())
    if policy is not None:
        policy.check_actions(actions)
    return Driver(growth, policy or _built_in(controller, actions, growth, seed), actions, total_steps, parents)


def _with_forecaster(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, config: GrowthConfig, seed: int, forecaster: str
) -> Nowcast:
    """The optimizer, with nowcasts at the decisions of a controller only."""
    examples = task.sample("guard", config.examples, generator(seed)).to(device_of(model))

    def guard() -> Tensor:
        return task.losses(model.eval()(examples.inputs), examples.labels)

    policy = NowcastPolicy(every=_NEVER * config.interval, stride=config.interval, horizons=config.horizons)
    return Nowcast(optimizer, model, forecaster, policy=policy, guard=guard, max_overhead=None)


def _policy(controller: str) -> tuple[Policy | None, tuple[Parent, ...]]:
    """The policy of a file or of the registry, and the parents of what it controls; None for a name without one."""
    if controller.startswith(("models:/", "runs:/")):
        registered = cast(Parent | None, load_path(_REGISTERED_PARENT)(controller))
        with load_path(_FILE_FROM_MLFLOW)(registered.name if registered else controller) as path:
            found = load_policy(path)
            run_id = controller.removeprefix("runs:/").rstrip("/")
            return found, (registered,) if registered else tuple(replace(p, run_id=run_id) for p in file_parents(path))
    path = Path(controller)
    return (load_policy(path), file_parents(path)) if path.is_file() else (None, ())


def _built_in(name: str, actions: list[Action], growth: Growth, seed: int) -> Controller:
    slot = next(iter(growth.slots.values()))
    blueprints = [blueprint_of(slot.topology, action.argument) for action in actions if action.kind == "germinate"]
    largest = max(blueprints, key=lambda each: each.estimate(slot.dim)).name
    controller = built_in(name, actions, largest, seed)
    if controller is None:
        raise InvalidConfig(
            f"the controller is {shown(name)}; expected wait, random, heuristic, a schedule such as "
            f"schedule:{largest}@0.2, an existing policy file, or models:/<name>@<alias>"
        )
    return controller
