"""Tasks by name: data sets in four splits, a loss and metrics.

`TASKS` names the module that defines each of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config import build_configured
from ..core.errors import InvalidConfig
from ..core.moved import moved_names
from ..core.registry import Registry
from ..core.text import shown
from .base import Batch, Examples, Split, SplitConfig, Task, TaskConfig
from .supervised import Classification, Regression

TASKS = Registry(
    "task",
    "metaopt.tasks",
    {
        "associative-recall": "metaopt.tasks.associative_recall:AssociativeRecall",
        "captioned-latents": "metaopt.diffusion.latents:CaptionedLatents",
        "captioned-shapes": "metaopt.diffusion.task:CaptionedShapes",
        "cifar10": "metaopt.tasks.image_datasets:CIFAR10",
        "csv": "metaopt.tasks.csv_table:CSVTable",
        "digits": "metaopt.tasks.image_datasets:Digits",
        "fashion-mnist": "metaopt.tasks.image_datasets:FashionMNIST",
        "image-folder": "metaopt.tasks.image_folder:ImageFolder",
        "mnist": "metaopt.tasks.image_datasets:MNIST",
        "needle": "metaopt.tasks.needle:Needle",
        "passkey": "metaopt.tasks.needle:Passkey",
        "text": "metaopt.tasks.text:Text",
        "tinystories": "metaopt.tasks.text:TinyStories",
    },
    base=Task,
)
"""Tasks by name, including those of installed plug-ins."""


def load_task(name: str, **config: Any) -> Task:
    """Load a task by name.

        import metaopt

        task = metaopt.load_task("digits", shift=0)
        inputs, labels = task.splits["validation"][:64]  # [64, 1, 8, 8], [64]
        model = metaopt.get_target_model("MLP", task.model_facts)
        loss = task.loss(model(inputs), labels)

    Args:
        config: options of the task; `metaopt list tasks NAME` shows them.
    Raises:
        UnknownName: there is no such task; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
        TaskDataError: the data is missing or unreadable.
    """
    task: Task = build_configured(TASKS.get(name), config)
    return task


def task_config(name: str, options: Mapping[str, Any], data_dir: Path | None = None) -> dict[str, Any]:
    """The complete configuration of a task as plain values.

    Args:
        options: the options that differ from their defaults.
        data_dir: folder or file of the data; overrides the one in `options`.
    Raises:
        UnknownName: there is no such task; the message lists the nearest names.
        InvalidConfig: an unknown option, an invalid value, or a `data_dir` for a task that reads no files.
    """
    kind = TASKS.get(name)
    if data_dir is None:
        return kind.Config.from_mapping(options).to_mapping()
    if "data_dir" not in kind.Config.names():
        raise InvalidConfig(f"data_dir is {shown(str(data_dir))}, but task {shown(name)} reads no files; leave it out")
    return kind.Config.from_mapping({**options, "data_dir": data_dir}).to_mapping()


__getattr__ = moved_names(__name__, {"get_task": "metaopt.tasks:load_task"})

__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "Examples",
    "Regression",
    "Split",
    "SplitConfig",
    "Task",
    "TaskConfig",
    "load_task",
    "task_config",
]
