"""MLproject, shell completion, command line, configurations, environments and changelog agree."""

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import torch
import yaml
from packaging.requirements import Requirement

import metaopt
from metaopt.cli import COMMANDS, cli
from metaopt.cli.completion import TABLE
from metaopt.cli.options import config_command
from metaopt.cli.project import CONFIGS, completion_table, mlproject
from metaopt.core.config import default_text, option
from metaopt.core.dependencies import import_torchvision
from metaopt.recording.config import TrainTargetConfig

ROOT = Path(__file__).parents[1]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED_FOR = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}
"""The machine of conda.yaml; requirements.txt covers others too."""


def command(name) -> click.Command:
    return cli.get_command(click.Context(cli), name)


def entry_point(name) -> dict:
    return PROJECT["entry_points"][name.replace("-", "_")]


def canonical(name) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, Requirement]:
    """Requirements that hold on the pinned machine, by name."""
    found = [Requirement(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {canonical(each.name): each for each in found if each.marker is None or each.marker.evaluate(PINNED_FOR)}


def pinned_version(requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    return specifier.version


def requirements_txt() -> dict[str, Requirement]:
    return pins((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("path", "generate"), [(ROOT / "MLproject", mlproject), (TABLE, completion_table)], ids=["MLproject", "completion"]
)
def test_generated_files_are_up_to_date(path, generate):
    assert path.read_text(encoding="utf-8") == generate(), "run `python -m metaopt.cli.project`"


class MoreConfig(TrainTargetConfig):
    """A configuration with one more field."""

    burn_in: int = option(default=7, help="Steps before the first snapshot.", at_least=0)


def test_a_new_field_is_a_flag_a_parameter_and_a_completion():
    """A field is the only line to write."""
    received = []
    flags = config_command("train-target", "Train.", MoreConfig, received.append, lambda *_: None).params
    assert {"--burn-in": "7", "--epochs": "10"}.items() <= {each.opts[0]: each.default for each in flags}.items()
    configs = {**CONFIGS, "train-target": MoreConfig}
    declared = yaml.safe_load(mlproject(configs))["entry_points"]["train_target"]
    assert declared["parameters"]["burn_in"] == {"type": "float", "default": 7}
    assert "--burn-in {burn_in}" in declared["command"]
    assert "burn-in" in json.loads(completion_table(configs))["flags"]["train-target"]
    assert "burn-in" not in TABLE.read_text(encoding="utf-8")
    assert MoreConfig.from_mapping({"burn_in": "3"}).to_mapping()["burn_in"] == 3


def test_commands_configurations_and_entry_points_are_the_same():
    others = [
        *("export-adapter", "inspect", "diagnose", "validate", "campaign", "config", "hosts", "queue"),
        *("worker", "dashboard", "reports", "ledger", "lineage", "prune", "list", "upload"),
    ]
    assert list(COMMANDS) == [*CONFIGS, *others]
    assert [name.replace("_", "-") for name in PROJECT["entry_points"]] == list(CONFIGS)
    assert {path.stem for path in (ROOT / "entrypoints").glob("[!_]*.py")} == set(PROJECT["entry_points"])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_one_name_and_one_default(name):
    fields = dataclasses.fields(CONFIGS[name])
    expected = {field.name: default_text(field) for field in fields} | {"config": "none"}
    flags = {option.name: option.default for option in command(name).params} | {"config": "none"}
    parameters = {key: str(value["default"]) for key, value in entry_point(name)["parameters"].items()}
    assert list(parameters.items()) == list(flags.items()) == list(expected.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_default_is_a_valid_value_and_reads_as_itself(name):
    texts = {field.name: default_text(field) for field in dataclasses.fields(CONFIGS[name])}
    assert CONFIGS[name].from_mapping(texts) == CONFIGS[name]()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_entry_point_passes_each_parameter_to_the_flag_of_its_name(name):
    start, *words = entry_point(name)["command"].split(" --")
    assert start == f"python -m entrypoints.{name.replace('-', '_')}"
    passed = dict(word.split() for word in words)
    assert passed == {key.replace("_", "-"): f"{{{key}}}" for key in entry_point(name)["parameters"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_are_declared_as_numbers(name):
    kinds = {field.name: type(field.default) for field in dataclasses.fields(CONFIGS[name])}
    for parameter, declared in entry_point(name)["parameters"].items():
        assert declared["type"] == ("float" if kinds.get(parameter) in (int, float) else "string"), parameter


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_a_help_text(name):
    assert all(option.help and option.help.endswith(".") for option in command(name).params)
    assert command(name).help


def test_one_environment_in_three_files():
    pinned = requirements_txt()
    conda = yaml.safe_load((ROOT / PROJECT["conda_env"]).read_text(encoding="utf-8"))
    python, pip, inline = conda["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    wanted = pins(METADATA["dependencies"])
    assert {name: str(each) for name, each in pins(inline["pip"]).items()} == {
        name: f"{name}=={pinned_version(pinned[name])}" for name in wanted
    }


def test_pinned_versions_fulfil_the_requirements_of_the_package():
    pinned = requirements_txt()
    extras = [line for extra in METADATA["optional-dependencies"].values() for line in extra]
    asked = pins(METADATA["dependencies"] + [line for line in extras if not line.startswith("metaopt[")])
    for name, requirement in asked.items():
        assert requirement.specifier.contains(pinned_version(pinned[name])), requirement


def test_every_pin_is_exact_and_names_no_index():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert all(pinned_version(requirement) for requirement in requirements_txt().values())
    assert not re.search(r"https?://|--index|--find-links|--extra-index", text)


def test_torch_and_torchvision_are_a_matching_pair():
    """A torchvision that was built for another torch fails here, with "operator torchvision::nms does not exist"."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert import_torchvision().ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


def test_the_changelog_has_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{METADATA['version']}]" in changelog


def test_every_public_name_can_be_imported():
    assert all(hasattr(metaopt, name) for name in metaopt.__all__)


@pytest.mark.parametrize("module", ["metaopt", "metaopt.workflows", "metaopt.cli"])
def test_importing_the_package_imports_no_heavy_library(module):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "mlflow", "numpy", "matplotlib"} & set(done.stdout.split())


def test_tests_that_need_a_gpu_are_where_the_benchmark_runs_them():
    marker = "mark." + "gpu"
    marked = {path.parent for path in (ROOT / "tests").rglob("test_*.py") if marker in path.read_text(encoding="utf-8")}
    assert marked == {ROOT / "tests" / "gpu"}
    assert "-m gpu tests/gpu" in (ROOT / "benchmarks" / "gpu.sh").read_text(encoding="utf-8")
