"""Tasks: data, loss and metrics. One file each; one line in this table each."""

from typing import Any

from ..registry import Registry
from .base import Batch, Task

TASKS = Registry(
    "task",
    "metaopt.tasks",
    {
        "digits": "metaopt.tasks.digits:Digits",
        "mnist": "metaopt.tasks.mnist:MNIST",
    },
)


def get_task(name: str, **config: Any) -> Task:
    """Build a task by name.

    Raises:
        UnknownName: no such task; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
        TaskDataError: its data is missing or unreadable.
    """
    kind = TASKS.get(name)
    task: Task = kind(kind.Config.from_mapping(config))
    return task


__all__ = ["TASKS", "Batch", "Task", "get_task"]
