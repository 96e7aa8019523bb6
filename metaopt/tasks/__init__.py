"""Tasks: data, loss and metrics. One file each; one line in this table each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InvalidConfig
from ..core.registry import Registry
from .base import Batch, Examples, Task, TaskConfig

TASKS = Registry(
    "task",
    "metaopt.tasks",
    {
        "cifar10": "metaopt.tasks.torchvision_datasets:CIFAR10",
        "csv": "metaopt.tasks.csv_table:CSVTable",
        "digits": "metaopt.tasks.digits:Digits",
        "fashion-mnist": "metaopt.tasks.torchvision_datasets:FashionMNIST",
        "image-folder": "metaopt.tasks.image_folder:ImageFolder",
        "mnist": "metaopt.tasks.torchvision_datasets:MNIST",
        "text": "metaopt.tasks.text:Text",
        "tinystories": "metaopt.tasks.tinystories:TinyStories",
    },
)
"""Tasks by name, those of outside packages included."""


def load_task(name: str, **config: Any) -> Task:
    """Build a task by name.

    Raises:
        UnknownName: no such task; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
        TaskDataError: its data is missing or unreadable.
    """
    kind = TASKS.get(name)
    task: Task = kind(kind.Config.from_mapping(config))
    return task


def task_config(name: str, options: Mapping[str, Any], data_dir: Path | None = None) -> dict[str, Any]:
    """The full configuration of a task: the user's options, and where its data lies if that is given.

    Raises:
        UnknownName: no such task.
        InvalidConfig: an option that the task does not have, a value it cannot take, or a folder where it reads none.
    """
    kind = TASKS.get(name)
    if data_dir is None:
        return kind.Config.from_mapping(options).to_mapping()
    if "data_dir" not in kind.Config.names():
        raise InvalidConfig(f"data_dir is {data_dir}, but task {name!r} reads no files; leave it out")
    return kind.Config.from_mapping({**options, "data_dir": data_dir}).to_mapping()


__all__ = ["TASKS", "Batch", "Examples", "Task", "TaskConfig", "load_task", "task_config"]
