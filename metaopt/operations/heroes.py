"""Heroes: YAML files with the parameters of several workflows that belong together, a section for each.

    common: {task: digits, target_model: MLP, run_name: digits-mlp}
    train-target: {epochs: 20, runs: 8}
    train-optimizer: {epochs: 10}

The section `common` holds for each workflow that has the parameter. Every command reads its part of such a file with
`--config`; a file without sections has the parameters of one command, as always.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config import read_config_file
from ..core.errors import InvalidConfig
from ..core.registry import suggest
from ..core.text import shown
from ..core.yaml_values import lines_of_names
from .layers import Given, Layer, Origin, own_layer, shared_layer
from .workflow_table import WORKFLOWS

COMMON = "common"
_HERO = "hero"
_SECTIONS = {name.replace("-", "_"): name for name in (COMMON, *WORKFLOWS)}
"""Names of sections, by their names with underscores."""


def read_hero(path: Path, workflow: str, *, optional: bool = False) -> Layer:
    """What a hero, or a file with the parameters of one workflow, states for a workflow.

    Args:
        optional: whether it may say nothing about the workflow.
    Raises:
        InvalidConfig: the file cannot be read, has an unknown section or parameter, or no section for the workflow.
    """
    values = read_config_file(path)
    lines = lines_of_names(path)
    if not is_hero(values):
        return own_layer(_given(path, values, lines, ()), workflow, str(path))
    sections = _checked_sections(path, values)
    own = workflow.replace("-", "_")
    if own not in sections and COMMON not in sections and not optional:
        named = ", ".join(_SECTIONS[name] for name in sections)
        raise InvalidConfig(
            f"{path} has the sections {named}, and none for {workflow}; add `{workflow}:` or `{COMMON}:`"
        )
    shared = _given(path, sections.get(COMMON, {}), lines, (COMMON,))
    given = _given(path, sections.get(own, {}), lines, (own,))
    return {
        **shared_layer(shared, workflow, f"the section {COMMON} of {path}"),
        **own_layer(given, workflow, f"the section {workflow} of {path}"),
    }


def hero_workflows(path: Path) -> list[str]:
    """The workflows that a hero has sections for, in the order of the file.

    Raises:
        InvalidConfig: the file cannot be read, is no hero, or has an unknown section.
    """
    values = read_config_file(path)
    if not is_hero(values):
        raise InvalidConfig(
            f"{path} has no sections; expected a hero, with sections such as `{COMMON}:` and `train-target:`"
        )
    return [_SECTIONS[name] for name in _checked_sections(path, values) if name != COMMON]


def is_hero(values: Mapping[str, Any]) -> bool:
    """Whether a file has sections: no parameter of a workflow has the name of a section."""
    return any(name in _SECTIONS for name in values)


def _checked_sections(path: Path, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sections = {}
    for name, section in values.items():
        if name not in _SECTIONS:
            raise InvalidConfig(f"{path} has the section {shown(name)}: {suggest(name, _SECTIONS.values())}")
        if not isinstance(section, Mapping | None):
            raise InvalidConfig(
                f"the section {_SECTIONS[name]} of {path} is {shown(section)}; expected names with values, such as "
                "`epochs: 10`"
            )
        sections[name] = {each.replace("-", "_"): value for each, value in (section or {}).items()}
    return sections


def _given(
    path: Path, values: Mapping[str, Any], lines: Mapping[tuple[str, ...], int], way: tuple[str, ...]
) -> dict[str, Given]:
    return {name: Given(value, Origin(_HERO, path, lines.get((*way, name)))) for name, value in values.items()}
