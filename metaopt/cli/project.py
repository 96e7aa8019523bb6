"""Generates `MLproject` and the table of shell completion from the configurations.

A new parameter is a field of a configuration; `python -m metaopt.cli.project` then writes both files. A test compares
them with the configurations.
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..comparison.config import CompareConfig
from ..core.config import Config, default_text
from ..evaluation.config import EvaluateConfig
from ..generative import GENERATIVE_OPTIMIZERS
from ..metatraining.config import TrainOptimizerConfig
from ..operations.dashboard import DashboardConfig
from ..operations.executors import WorkersConfig
from ..operations.lineage_files import LineageConfig
from ..operations.pruning import PruneConfig
from ..operations.validation.running import ValidateConfig
from ..probes import PROBES
from ..recording.config import TrainTargetConfig
from ..reinforcement.config import TrainControllerConfig
from ..targets import TARGETS
from ..tasks import TASKS
from ..workflows.adapter_files import ExportAdapterConfig
from ..workflows.diagnose_change import DiagnoseConfig
from ..workflows.evaluate_controller import EvaluateControllerConfig
from ..workflows.generate_weights import GenerateConfig
from ..workflows.inspect_weights import InspectConfig
from ..workflows.main_job import MainConfig
from ..workflows.register_optimizer import RegisterConfig
from . import COMMANDS
from .campaign import command as campaign
from .completion import TABLE
from .config import command as config
from .list import KINDS
from .queue import command as queue

CONFIGS: Mapping[str, type[Config]] = {
    "main": MainConfig,
    "train-target": TrainTargetConfig,
    "train-optimizer": TrainOptimizerConfig,
    "train-controller": TrainControllerConfig,
    "evaluate": EvaluateConfig,
    "evaluate-controller": EvaluateControllerConfig,
    "register": RegisterConfig,
    "generate": GenerateConfig,
    "compare": CompareConfig,
}
"""Configuration of each command that is an entry point of the MLflow project."""

_GROUPS: Mapping[str, click.Group] = {"campaign": campaign, "config": config, "queue": queue}
"""Commands that have commands of their own."""

_ROOT = Path(__file__).parents[2]

_HEADER = """\
name: metaopt

conda_env: conda.yaml

# Written by `python -m metaopt.cli.project`. The parameters are the flags of the `metaopt` command of the same name,
# with their defaults: `none` is no value, `"low:high"` a range, `"a=1 b=[2,3]"` options.
# No parameter has the type `path`: MLflow rejects paths that do not exist yet and rewrites those that do.
entry_points:
"""


def mlproject(configs: Mapping[str, type[Config]] = CONFIGS) -> str:
    """The text of `MLproject`: an entry point for each command, a parameter for each field."""
    return _HEADER + "\n".join(_entry_point(name, kind) for name, kind in configs.items())


def completion_table(configs: Mapping[str, type[Config]] = CONFIGS) -> str:
    """The flags of each command and the names that metaopt defines, as JSON."""
    kinds = {
        **configs,
        "export-adapter": ExportAdapterConfig,
        "inspect": InspectConfig,
        "diagnose": DiagnoseConfig,
        "validate": ValidateConfig,
        "worker": WorkersConfig,
        "dashboard": DashboardConfig,
        "lineage": LineageConfig,
        "prune": PruneConfig,
    }
    flags = {
        name: [*(field.name.replace("_", "-") for field in _fields(kind)), "config"] for name, kind in kinds.items()
    }
    others: dict[str, list[str]] = {
        **{name: [] for name in _GROUPS},
        "hosts": ["hosts", "probe", "time-limit"],
        "reports": ["report-dir"],
        "ledger": ["checkpoint-dir", "check"],
        "list": [],
        "upload": [],
    }
    registries = {
        "task": TASKS,
        "target-model": TARGETS,
        "optimizer-model": GENERATIVE_OPTIMIZERS,
        "probes": PROBES,
    }
    table = {
        "flags": {name: {**flags, **others}[name] for name in COMMANDS},
        "names": {flag: registry.table for flag, registry in registries.items()},
        "groups": {flag: list(registry.groups) for flag, registry in registries.items()},
        "kinds": list(KINDS),
        **{name: list(group.commands) for name, group in _GROUPS.items()},
    }
    return json.dumps(table, indent=1) + "\n"


def write(root: Path = _ROOT) -> None:
    """Write both files."""
    (root / "MLproject").write_text(mlproject(), encoding="utf-8")
    TABLE.write_text(completion_table(), encoding="utf-8")


def _fields(kind: type[Config]) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(kind)  # type: ignore[arg-type]


def _entry_point(name: str, kind: type[Config]) -> str:
    script = name.replace("-", "_")
    names = [*kind.names(), "config"]
    words = [f"python -m entrypoints.{script}", *(f"--{each.replace('_', '-')} {{{each}}}" for each in names)]
    parameters = "\n".join(f"      {line}" for line in _parameters(kind))
    return f"  {script}:\n    parameters:\n{parameters}\n    command: >-\n{_folded(words)}\n"


def _parameters(kind: type[Config]) -> Iterator[str]:
    for field in _fields(kind):
        number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
        default = default_text(field) if number else json.dumps(default_text(field))
        yield f"{field.name}: {{type: {'float' if number else 'string'}, default: {default}}}"
    yield 'config: {type: string, default: "none"}'


def _folded(words: Sequence[str]) -> str:
    """Words in lines of at most 118 characters; a flag and its value are in one line."""
    joined = " ".join(word.replace(" ", "\0") for word in words)
    lines = textwrap.wrap(joined, 112, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"      {line}" for line in lines).replace("\0", " ")


if __name__ == "__main__":
    write()
