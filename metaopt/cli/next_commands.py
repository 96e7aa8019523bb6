"""Commands that a result suggests as the next step, complete with the task, the network and their data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import MetaoptError

if TYPE_CHECKING:
    from ..metatraining.trained import TrainedOptimizer


def evaluate_words(
    optimizer: str,
    trained: "TrainedOptimizer",
    trajectory_dir: Path,
    mixture: Path | None = None,
    data_dir: Path | None = None,
) -> list[str]:
    """The words of `metaopt evaluate` for an optimizer, on the first problem of its training.

    There are none if adapters trained it: recordings state a digest of the weights that they began with, and no file.

    Args:
        optimizer: URI or file of the optimizer.
        trajectory_dir: folder of the trajectories that trained it, which state the options of the problem.
        mixture: the mixture that trained it, if it was one.
        data_dir: base of relative data folders in the mixture.
    """
    from ..metatraining.trained import trained_network

    target_model, task = trained.first_problem
    if target_model.endswith(trained_network("", "lora")):
        return []
    words = ["metaopt", "evaluate", "--optimizer", optimizer, "--task", task, "--target-model", target_model]
    try:
        if mixture is not None:
            return words + _words_of_component(mixture, trained.training_names[0], data_dir)
        return words + _words_of_trajectory(trajectory_dir / trained.training_names[0])
    except (MetaoptError, KeyError, IndexError, TypeError):  # a suggestion must not fail a command that succeeded
        return words


def _words_of_component(mixture: Path, name: str, data_dir: Path | None) -> list[str]:
    """The flags for the options of a component of a mixture."""
    from ..metatraining.mixture import component_configs

    config = component_configs(mixture)[name]
    folder = data_dir / config.data_dir if data_dir and config.data_dir else config.data_dir
    return _flags(folder, config.task_options, config.target_options)


def _words_of_trajectory(folder: Path) -> list[str]:
    """The flags for the options in which a trajectory differs from the defaults."""
    from ..metatraining.problem import recorded_task_config
    from ..targets import names_code, target_config
    from ..tasks import load_task, task_config
    from ..trajectories import Trajectory

    run = Trajectory.open(folder).run
    if names_code(run["target_model"]):  # its options are only known to its code, and a file must not run code
        return []
    task = load_task(run["task"], **recorded_task_config(run))
    data_dir = run["task_config"].get("data_dir")
    task_options = _changed(run["task_config"], {**task_config(run["task"], {}), "data_dir": data_dir})
    target_options = _changed(run["target_config"], target_config(run["target_model"], task.model_facts, {}))
    return _flags(data_dir, task_options, target_options)


def _flags(data_dir: object, task_options: Mapping[str, Any], target_options: Mapping[str, Any]) -> list[str]:
    words = ["--data-dir", str(data_dir)] if data_dir else []
    words += ["--task-options", _text(task_options)] if task_options else []
    return words + (["--target-options", _text(target_options)] if target_options else [])


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if defaults.get(name) != value}


def _text(options: Mapping[str, Any]) -> str:
    """Options as a user types them, such as `widths=[8] norm=batch`."""
    values = {name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
              for name, value in options.items()}  # fmt: skip
    return " ".join(f"{name}={value}" for name, value in values.items())
