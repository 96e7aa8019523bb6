"""The mixture of online meta-training: tasks and targets from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.config import Config, Options, Range, option, read_config_file
from ..core.devices import CPU
from ..core.errors import InvalidConfig, MetaoptError, UntrustedCode
from ..core.rng import generator
from ..core.text import shown
from ..nowcast.policy import NowcastPolicy
from ..targets import get_target_model, names_code, target_config
from ..tasks import Task, load_task, task_config
from ..weights.building import check_memory
from .inner_loop import InnerTrainings
from .problem import InnerProblem

_COPIES = 4  # tensors per weight of each inner training: itself, its gradient and two moments of Adam [count]


class ComponentConfig(Config):
    """Configuration of one component: a task, a target and the hyperparameters of its inner trainings."""

    task: str = option(default="digits", help="Task to train on.")
    task_options: Options = option(default={}, help="Further parameters of the task.")
    data_dir: Path | None = option(default=None, help="Folder of the task's data, for tasks that read files.")
    target_model: str = option(default="MLP", help="Network to train.", runs_code=names_code)
    target_options: Options = option(default={}, help="Parameters of the network.")
    lr: Range = option(
        default=Range(3e-4, 6e-3), help="Learning rates low:high of Adam; each training draws one.", above=0.0
    )
    batch_size: int = option(default=64, help="Examples per batch [count].", at_least=1)
    rows: int = option(default=8, help="Trainings that run together [count].", at_least=1)


@dataclass(frozen=True)
class MixtureComponent:
    """One component of a mixture: its name, its configuration, and its problem with the data loaded."""

    name: str
    config: ComponentConfig
    problem: InnerProblem


def read_mixture(
    path: Path, data_dir: Path | None = None, *, trusted: bool = False, device: torch.device = CPU
) -> list[MixtureComponent]:
    """Read the components of a mixture, one per line `name: {task: …, target_model: …, lr: low:high, …}`.

    Args:
        path: a YAML file.
        data_dir: base of relative data folders in the file; the working folder by default.
        trusted: whether the file may name networks by dotted paths, whose code is imported.
        device: device of the inner trainings.
    Raises:
        UntrustedCode: the file names such a network, and `trusted` is false.
        InvalidConfig: the file is missing, or a component is invalid; the message names the component.
        UnknownName, TaskDataError: the task or the network of a component is unknown, or its data is missing.
    """
    tasks: dict[str, Task] = {}
    configs = component_configs(path, trusted=trusted)
    return [_component(name, config, tasks, data_dir, device) for name, config in configs.items()]


def component_configs(path: Path, *, trusted: bool = False) -> dict[str, ComponentConfig]:
    """The configuration of each component of a mixture, by its name; no data is loaded.

    Raises:
        UntrustedCode: the file names a network by a dotted path, and `trusted` is false.
        InvalidConfig: the file is missing, or a component is invalid; the message names the component.
    """
    return {name: _configuration(path, name, values, trusted) for name, values in read_config_file(path).items()}


def _configuration(path: Path, name: str, values: Any, trusted: bool) -> ComponentConfig:
    source = f"{name} in the mixture"
    if not isinstance(values, Mapping):
        raise InvalidConfig(f"{source} is {shown(values)}; expected names with values, such as `task: digits`")
    try:
        return ComponentConfig.from_file_values(values, f"{source} {path}", trusted=trusted)
    except UntrustedCode:
        raise
    except MetaoptError as error:
        raise type(error)(f"{source}: {error}") from error


def _component(
    name: str, config: ComponentConfig, tasks: dict[str, Task], data_dir: Path | None, device: torch.device
) -> MixtureComponent:
    try:
        folder = data_dir / config.data_dir if data_dir and config.data_dir else config.data_dir
        options = task_config(config.task, config.task_options, folder)
        key = repr((config.task, options))
        if key not in tasks:
            tasks[key] = load_task(config.task, **options)
        network = target_config(config.target_model, tasks[key].model_facts, config.target_options)
        check_rows(config, network)
        problem = InnerProblem(tasks[key], config.target_model, network, device=device)
        problem.check_inner_trainings()
        return MixtureComponent(name, config, problem)
    except MetaoptError as error:
        raise type(error)(f"{name} in the mixture: {error}") from error


def check_rows(config: ComponentConfig, network: Mapping[str, Any]) -> None:
    """Check that the trainings of a component fit into the memory of this machine.

    Args:
        network: the full configuration of the network.
    Raises:
        InvalidConfig: they do not.
    """
    copies = 1 + _COPIES * config.rows
    check_memory(lambda: get_target_model(config.target_model, **network), config.target_options, copies)


def start_trainings(
    component: MixtureComponent, policy: NowcastPolicy, history: int, averaging: float, seed: int
) -> InnerTrainings:
    """New inner trainings of a component.

    Args:
        policy: decides when to take snapshots and which weights follow a forecast.
        history: length of the history [count].
        averaging: decay of the EMA of the weights that snapshots hold; 0 for the weights themselves.
        seed: random seed of initial weights, learning rates and batches.
    """
    config = component.config
    rates, seeds = _draw(config, generator(seed))
    return InnerTrainings(
        component.problem,
        torch.stack([component.problem.initial_weights(each) for each in seeds]),
        torch.tensor(rates, device=component.problem.device),
        batch_size=config.batch_size,
        policy=policy,
        history=history,
        averaging=averaging,
        seed=seed,
    )


def _draw(config: ComponentConfig, random: torch.Generator) -> tuple[list[float], list[int]]:
    """The learning rate of each training, and the random seed of its initial weights."""
    positions = torch.rand(config.rows, dtype=torch.float64, generator=random).tolist()
    seeds = torch.randint(2**31, (config.rows,), generator=random).tolist()
    return [config.lr.at(position) for position in positions], seeds
