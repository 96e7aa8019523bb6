"""What live meta-training trains on: a mixture of tasks and targets, from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.config import Config, Options, Range, option, read_config_file
from ..core.errors import InvalidConfig, MetaoptError
from ..core.rng import generator
from ..nowcast.policy import NowcastPolicy
from ..targets import target_config
from ..tasks import Task, load_task, task_config
from .inner_loop import InnerTrainings
from .problem import InnerProblem


class ComponentConfig(Config):
    """One kind of inner training."""

    task: str = option(default="digits", help="Task to train on.")
    task_options: Options = option(default={}, help="Further parameters of the task.")
    data_dir: Path | None = option(default=None, help="Folder of the task's data, for tasks that read files.")
    target_model: str = option(default="MLP", help="Network to train.")
    target_options: Options = option(default={}, help="Parameters of the network.")
    lr: Range = option(default=Range(3e-4, 6e-3), help="Learning rates of Adam; each training draws one.", above=0.0)
    batch_size: int = option(default=64, help="Examples in a batch.", at_least=1)
    rows: int = option(default=8, help="Trainings side by side [count].", at_least=1)


@dataclass(frozen=True)
class MixtureComponent:
    """One kind of inner training, ready to start: its name, configuration and problem."""

    name: str
    config: ComponentConfig
    problem: InnerProblem


def read_mixture(path: Path, data_dir: Path | None = None) -> list[MixtureComponent]:
    """Build every problem that a file names: `name: {task: …, target_model: …, lr: low:high, …}`, once for each.

    Args:
        data_dir: where relative data folders in the file start; the working folder unless given.
    Raises:
        InvalidConfig: no such file, or an ingredient that cannot be; the message names it.
        UnknownName, TaskDataError: likewise for its task, data and network.
    """
    tasks: dict[str, Task] = {}
    return [_component(name, values, tasks, data_dir) for name, values in read_config_file(path).items()]


def _component(name: str, values: Any, tasks: dict[str, Task], data_dir: Path | None) -> MixtureComponent:
    if not isinstance(values, Mapping):
        raise InvalidConfig(f"{name} in the mixture is {values!r}; expected names and values, such as `task: digits`")
    try:
        config = ComponentConfig.from_mapping(values)
        place = data_dir / config.data_dir if data_dir and config.data_dir else config.data_dir
        options = task_config(config.task, config.task_options, place)
        key = repr((config.task, options))
        if key not in tasks:
            tasks[key] = load_task(config.task, **options)
        network = target_config(config.target_model, tasks[key].model_facts, config.target_options)
        return MixtureComponent(name, config, InnerProblem(tasks[key], config.target_model, network))
    except MetaoptError as error:
        raise type(error)(f"{name} in the mixture: {error}") from error


def start(
    component: MixtureComponent, policy: NowcastPolicy, history: int, averaging: float, seed: int
) -> InnerTrainings:
    """Fresh inner trainings of a component; the random seed determines weights, learning rates and batches.

    Args:
        policy: when snapshots are kept, and which weights follow a forecast.
        history: how many snapshots are kept [count].
        averaging: decay of the running average that the snapshots are of; 0 for the weights themselves.
    """
    config, random = component.config, generator(seed)
    positions = torch.rand(config.rows, dtype=torch.float64, generator=random).tolist()
    seeds = torch.randint(2**31, (config.rows,), generator=random).tolist()
    return InnerTrainings(
        component.problem,
        torch.stack([component.problem.fresh_weights(each) for each in seeds]),
        torch.tensor([config.lr.at(position) for position in positions]),
        batch_size=config.batch_size,
        policy=policy,
        history=history,
        averaging=averaging,
        seed=seed,
    )
