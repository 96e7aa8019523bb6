"""The workflows that jobs can run, by the name of their command.

`metaopt.workflows` imports each at first use, so the names cost nothing.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from .. import workflows
from ..core.config import Config
from ..core.errors import UnknownName, UntrustedCode
from ..core.registry import Registry, suggest
from ..core.text import shown


class Workflow(NamedTuple):
    """Names in `metaopt.workflows`: the configuration, and the function that takes it."""

    config: str
    function: str

    @property
    def config_class(self) -> type[Config]:
        """The class of its configuration."""
        found: type[Config] = getattr(workflows, self.config)
        return found

    def run(self, config: Config) -> Any:
        """Run it in this process.

        Returns: its result, which may have a `failure`: a text that says what is missing from it, or None.
        """
        function: Callable[[Config], Any] = getattr(workflows, self.function)
        return function(config)


WORKFLOWS: Mapping[str, Workflow] = {
    "main": Workflow("MainConfig", "main"),
    "train-target": Workflow("TrainTargetConfig", "record"),
    "train-optimizer": Workflow("TrainOptimizerConfig", "train"),
    "train-controller": Workflow("TrainControllerConfig", "train_policy"),
    "evaluate": Workflow("EvaluateConfig", "evaluate"),
    "evaluate-controller": Workflow("EvaluateControllerConfig", "evaluate_policy"),
    "register": Workflow("RegisterConfig", "register"),
    "generate": Workflow("GenerateConfig", "generate"),
    "compare": Workflow("CompareConfig", "compare_training"),
}
"""Workflow of each command."""

_REGISTRIES: Mapping[str, tuple[str, str]] = {
    "task": ("metaopt.tasks", "TASKS"),
    "target_model": ("metaopt.targets", "TARGETS"),
    "base_optimizer": ("metaopt.optimizers", "BASE_OPTIMIZERS"),
    "optimizer_model": ("metaopt.generative", "GENERATIVE_OPTIMIZERS"),
}
"""Package and name of the registry in which the value of a parameter must be."""


def find_workflow(name: str) -> Workflow:
    """The workflow of a command.

    Raises:
        UnknownName: jobs cannot run it; the message has the nearest names.
    """
    if name not in WORKFLOWS:
        raise UnknownName(f"no workflow {shown(name)}: {suggest(name, WORKFLOWS)}")
    return WORKFLOWS[name]


def runs_code(name: str, values: Mapping[str, Any]) -> bool:
    """Whether the parameters of a job let code run, so that a worker must trust them."""
    try:
        find_workflow(name).config_class.refuse_code(values, "the job")
    except UntrustedCode:
        return True
    return False


def checked_config(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a job, checked, as JSON values.

    Raises:
        UnknownName: the workflow is unknown, or a task, a network or an optimizer is.
        InvalidConfig: a parameter is unknown, or a value is invalid.
    """
    checked = find_workflow(name).config_class.from_mapping(values).to_mapping()
    for field, (package, registry) in _REGISTRIES.items():
        value = checked.get(field)
        if isinstance(value, str) and ":" not in value:  # with a colon it is a network of a library, or code
            found: Registry = getattr(import_module(package), registry)
            found.origin(value)
    return checked
