"""A file must not run code: names of code count from the command line, from Python, or with --trust-config."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from metaopt.cli import cli
from metaopt.cli.project import CONFIGS
from metaopt.core.errors import InvalidConfig, UntrustedCode
from metaopt.evaluation.config import EvaluateConfig
from metaopt.metatraining.config import TrainOptimizerConfig
from metaopt.metatraining.mixture import ComponentConfig, read_mixture
from metaopt.metatraining.trainer import prepared_training
from metaopt.recording.config import TrainTargetConfig
from metaopt.targets import get_target_model
from metaopt.workflows.main_job import MainConfig

NAMING_CODE = (TrainTargetConfig, EvaluateConfig, MainConfig, ComponentConfig)


@pytest.fixture(autouse=True)
def trap(store, tmp_path, monkeypatch):
    """The file that the module `foreign` makes when it is imported."""
    (tmp_path / "foreign.py").write_text(
        "import pathlib\nfrom torch import nn\n\npathlib.Path('ran').touch()\n\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ran"
    sys.modules.pop("foreign", None)


def run(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["train-target", "evaluate", "main"])
@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize("name", ["foreign:build", "os:system", " foreign:build"])
def test_a_configuration_names_no_code(tmp_path, trap, command, suffix, name):
    config = tmp_path / f"config.{suffix}"
    config.write_text(json.dumps({"target_model": name, "target_options": {"command": "touch ran"}}))
    result = run(command, "--config", config)
    assert result.exit_code == 1
    assert "a file must not run code" in result.output
    assert "--target-model" in result.output
    assert "--trust-config true" in result.output
    assert not trap.exists()


@pytest.mark.parametrize("command", CONFIGS)
def test_no_text_of_a_configuration_is_imported(tmp_path, trap, command):
    for name in CONFIGS[command].names():
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({name: "foreign:build"}))
        run(command, "--config", config, "--steps", 1, "--epochs", 1)  # a flag that the command lacks ends it as well
        assert not trap.exists(), name


@pytest.mark.parametrize("name", ["trust_config", "trust-config", "trust_code"])
def test_a_file_cannot_trust_itself(tmp_path, name):
    config = tmp_path / "config.yaml"
    config.write_text(f"{name}: yes\n")
    result = run("train-optimizer", "--config", config)
    assert result.exit_code == 1
    assert "sets trust_" in result.output
    assert "give --trust-config true" in result.output


@pytest.mark.parametrize("flag", ["--trust-config", "--trust_config"])
def test_the_user_may_trust_a_file(tmp_path, trap, flag):
    config = tmp_path / "config.yaml"
    config.write_text("target_model: foreign:build\ntarget_options: {mistyped: 1}\n")
    result = run("train-target", "--config", config, flag, "true")
    assert trap.exists()
    assert "unknown parameter 'mistyped'" in result.output


def test_a_flag_overrides_the_name_in_a_file(tmp_path, trap):
    config = tmp_path / "config.yaml"
    config.write_text("target_model: foreign:build\ntarget_options: {mistyped: 1}\n")
    result = run("train-target", "--config", config, "--target-model", "MLP")
    assert "unknown parameter 'mistyped' for MLPConfig" in result.output
    assert not trap.exists()
    run("train-target", "--config", config, "--target-model", "foreign:build")
    assert trap.exists()


def test_a_mixture_names_no_code(tmp_path, trap):
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("mine: {task: digits}\ntheirs: {task: digits, target_model: 'foreign:build', rows: 1}\n")
    with pytest.raises(UntrustedCode, match=r"theirs in the mixture .* target_model .*--trust-config true"):
        read_mixture(mixture)
    assert not trap.exists()
    assert [each.name for each in read_mixture(mixture, trusted=True)] == ["mine", "theirs"]


@pytest.mark.parametrize("kind", NAMING_CODE)
def test_every_name_of_a_network_in_a_file_is_checked(kind):
    with pytest.raises(UntrustedCode):
        kind.from_file_values({"target_model": "foreign:build"}, "a file", trusted=False)
    named = kind.from_file_values({"target_model": "foreign:build"}, "a file", trusted=True)
    assert named == kind(target_model="foreign:build")


@pytest.fixture
def theirs(trap):
    """A trajectory of somebody else, which names `foreign:build`."""
    result = run("train-target", "--run-name", "theirs", "--target-model", "foreign:build", "--epochs", 1)
    assert result.exit_code == 0, result.output
    trap.unlink()
    sys.modules.pop("foreign")
    return Path("trajectories/theirs")


def test_the_main_job_trusts_only_the_network_that_the_user_typed(tmp_path, theirs, trap):
    (tmp_path / "mine.py").write_text((tmp_path / "foreign.py").read_text().replace("ran", "mine_ran"))
    shutil.copytree(theirs / "seed_0", "trajectories/mine/theirs")
    small = ["--runs", 2, "--target-epochs", 1, "--optimizer-epochs", 1, "--pairs-per-epoch", 8, "--averaging", 0]
    result = run("main", "--run-name", "mine", "--target-model", "mine:build", *small)
    assert result.exit_code == 1
    assert "trajectories/mine/theirs sets target_model to 'foreign:build', and a file must not run" in result.output
    assert Path("mine_ran").exists()
    assert not trap.exists()


def test_a_typed_name_is_trusted_in_trajectories_too(theirs, trap):
    config = TrainOptimizerConfig(run_name="theirs", optimizer_model="Line", epochs=1)
    for names in ([], ["mine:build"]):
        with pytest.raises(UntrustedCode), prepared_training(config, trusted_names=names):
            pass
    assert not trap.exists()
    with prepared_training(config, trusted_names=["foreign:build"]):
        assert trap.exists()


def test_a_suggested_command_imports_nothing(theirs, trap):
    result = run("train-optimizer", "--run-name", "theirs", "--objective", "weights", "--optimizer-model", "Line",
                 "--epochs", 1, "--model-name", "none")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "metaopt evaluate" in result.output
    assert not trap.exists()


def test_the_old_name_of_the_permission_works():
    with pytest.warns(DeprecationWarning, match="trust_config"):
        assert TrainOptimizerConfig.from_mapping({"trust_code": True}).trust_config


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("os:system", {"command": "touch ran"}, "builtin_function_or_method; expected a torch.nn.Module class"),
        ("subprocess:Popen", {"args": "touch ran"}, "is a class that is no torch.nn.Module"),
        ("os:getcwd", {}, "expected a torch.nn.Module class"),
        ("torch:nn", {}, "is module; expected"),
        ("returns:text", {}, "returns no module, as its annotation states"),
        ("returns:nothing", {}, "returns no module, as its annotation states"),
        ("returns:partial", {}, "returns no module"),
        ("returns:decorated", {}, "returns no module"),
        ("returns:fails", {}, r"fails \(ZeroDivisionError"),
        ("returns:unannotated", {}, "gives str; expected a torch.nn.Module"),
    ],
)
def test_what_makes_no_network_is_not_called_where_that_is_known(tmp_path, trap, path, options, message):
    (tmp_path / "returns.py").write_text(RETURNS)
    with pytest.raises(InvalidConfig, match=message):
        get_target_model(path, **options)
    sys.modules.pop("returns", None)
    assert not trap.exists()


RETURNS = """
import functools, pathlib
from torch import nn

def text() -> str:
    pathlib.Path("ran").touch()

def nothing() -> None:
    pathlib.Path("ran").touch()

partial = functools.partial(text)

@functools.wraps(text)
def decorated():
    pathlib.Path("ran").touch()

def fails() -> "nn.Linear | nn.Sequential":
    return 1 / 0

def unannotated():
    return "a text"
"""
