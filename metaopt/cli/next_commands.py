"""Commands that a result suggests as the next step, complete with the task, the network and their data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import MetaoptError

if TYPE_CHECKING:
    from ..metatraining.trained import TrainedOptimizer


def evaluate_words(optimizer: str, trained: "TrainedOptimizer", trajectory_dir: Path) -> list[str]:
    """The words of `metaopt evaluate` for an optimizer, on the problem of its training.

    Args:
        optimizer: URI or file of the optimizer.
        trajectory_dir: folder of the trajectories that trained it, which state the options of the problem.
    """
    target_model, task = trained.first_problem
    words = ["metaopt", "evaluate", "--optimizer", optimizer, "--task", task, "--target-model", target_model]
    return words + _option_words([trajectory_dir / name for name in trained.training_names])


def _option_words(folders: Sequence[Path]) -> list[str]:
    """The flags for the options in which the first trajectory differs from the defaults; none without trajectories."""
    from ..metatraining.problem import recorded_task_config
    from ..targets import names_code, target_config
    from ..tasks import load_task, task_config
    from ..trajectories import Trajectory

    try:
        run = Trajectory.open(folders[0]).run
        if names_code(run["target_model"]):  # its options are only known to its code, and a file must not run code
            return []
        task = load_task(run["task"], **recorded_task_config(run))
        data_dir = run["task_config"].get("data_dir")
        task_options = _changed(run["task_config"], {**task_config(run["task"], {}), "data_dir": data_dir})
        target_options = _changed(run["target_config"], target_config(run["target_model"], task.model_facts, {}))
        words = ["--data-dir", str(data_dir)] if data_dir else []
        words += ["--task-options", _text(task_options)] if task_options else []
        return words + (["--target-options", _text(target_options)] if target_options else [])
    except (MetaoptError, KeyError, IndexError, TypeError):  # a suggestion must not fail a command that succeeded
        return []


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if defaults.get(name) != value}


def _text(options: Mapping[str, Any]) -> str:
    """Options as a user types them, such as `widths=[8] norm=batch`."""
    values = {name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
              for name, value in options.items()}  # fmt: skip
    return " ".join(f"{name}={value}" for name, value in values.items())
