"""The workflows that jobs can run, by the name of their command.

`metaopt.workflows` imports each at first use, so the names cost nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import workflows
from ..core.config import Config
from ..core.errors import UnknownName
from ..core.registry import suggest
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
        """Run it in this process."""
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
}
"""Workflow of each command."""


def find_workflow(name: str) -> Workflow:
    """The workflow of a command.

    Raises:
        UnknownName: jobs cannot run it; the message has the nearest names.
    """
    if name not in WORKFLOWS:
        raise UnknownName(f"no workflow {shown(name)}: {suggest(name, WORKFLOWS)}")
    return WORKFLOWS[name]


def checked_config(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a job, checked, as JSON values.

    Raises:
        UnknownName: the workflow is unknown.
        InvalidConfig: a parameter is unknown, or a value is invalid.
    """
    return find_workflow(name).config_class.from_mapping(values).to_mapping()
