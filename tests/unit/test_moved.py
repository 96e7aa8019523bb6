"""Names of metaopt 0.1 still work and warn with their replacement."""

import importlib
import sys
import warnings

import pytest
import torch
from click.testing import CliRunner

import metaopt
from metaopt.core import moved
from metaopt.core.config import read_config_file
from metaopt.evaluation.config import EvaluateConfig

OPTIONAL = {"lightning": "lightning", "huggingface": "transformers"}
"""Packages that some modules need, by the last part of the module's name."""


@pytest.fixture(autouse=True)
def _forget_imports():
    """Import old modules again: only the first import warns."""
    for name in moved.MODULES:
        sys.modules.pop(name, None)
    yield
    for name in moved.MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("old", "new"), moved.MODULES.items())
def test_an_old_module_has_the_objects_of_the_new_one(old, new):
    if package := OPTIONAL.get(old.rpartition(".")[2]):
        pytest.importorskip(package)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        contents = vars(importlib.import_module(old))
    public = {name: value for name, value in vars(importlib.import_module(new)).items() if not name.startswith("_")}
    assert all(contents[name] is value for name, value in public.items())
    messages = [str(warning.message) for warning in caught if warning.category is DeprecationWarning]
    expected = f"{old} is deprecated and will be removed; use {new}"
    assert (expected in messages) == (old not in ("metaopt.callbacks", "metaopt.training"))


def test_the_warning_points_to_the_import():
    with pytest.warns(DeprecationWarning, match=r"use metaopt\.core\.errors") as caught:
        from metaopt.errors import MetaoptError
    assert caught[0].filename == __file__
    assert MetaoptError is metaopt.MetaoptError


@pytest.mark.parametrize("place", ["metaopt", "metaopt.tasks"])
def test_get_task_is_load_task(place):
    with pytest.warns(
        DeprecationWarning, match=rf"{place}\.get_task is deprecated .* use {place}\.load_task"
    ) as caught:
        assert importlib.import_module(place).get_task is metaopt.load_task
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["GenerativeOptimizer", "PerceiverOptimizer", "get_optimizer_model", "OPTIMIZERS"])
def test_generative_optimizers_are_found_in_the_old_package(name):
    with pytest.warns(
        DeprecationWarning, match=rf"metaopt\.optimizers\.{name} is deprecated .* use metaopt\.generative"
    ):
        assert getattr(importlib.import_module("metaopt.optimizers"), name) is not None


def test_an_unknown_name_is_an_attribute_error():
    for place in (metaopt, importlib.import_module("metaopt.tasks"), importlib.import_module("metaopt.optimizers")):
        with pytest.raises(AttributeError, match="no attribute 'get_tusk'"):
            place.get_tusk  # noqa: B018


def nowcast(**keywords):
    model = torch.nn.Linear(2, 1)
    return metaopt.Nowcast(torch.optim.SGD(model.parameters(), lr=0.1), model, every=20, **keywords)


def test_old_keywords_of_nowcast():
    line = metaopt.get_optimizer_model("Line")
    with pytest.warns(DeprecationWarning, match=r"use \w+=…") as caught:
        optimizer = nowcast(optimizer=line, horizon=30, straight=0.5)
    assert optimizer.forecaster is line
    assert optimizer.policy == nowcast(forecaster=line, horizons=30, min_cosine=0.5).policy
    assert [str(warning.message) for warning in caught] == [
        f"Nowcast({old}=…) is deprecated and will be removed; use {new}=…"
        for old, new in (("optimizer", "forecaster"), ("horizon", "horizons"), ("straight", "min_cosine"))
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_an_old_keyword_beside_its_new_name_is_an_error():
    line = metaopt.get_optimizer_model("Line")
    with pytest.raises(TypeError, match="both 'min_cosine' and its old name 'straight'; give only 'min_cosine'"):
        nowcast(forecaster=line, min_cosine=0.5, straight=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'horizn'"):
        nowcast(forecaster=line, horizn=20)


def test_an_old_parameter_in_a_file(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text("straight: 0.5\nsteps: 80\n")
    with pytest.warns(DeprecationWarning, match="parameter 'straight' of EvaluateConfig is deprecated .* 'min_cosine'"):
        config = EvaluateConfig.from_mapping(read_config_file(path))
    assert config == EvaluateConfig(min_cosine=0.5, steps=80)


@pytest.mark.parametrize("words", [["--straight", "0.5"], ["--straight=0.5"]])
def test_an_old_flag(words):
    from metaopt.cli.options import config_command
    from metaopt.cli.output import Result

    received = []
    command = config_command("try", "Try.", EvaluateConfig, received.append, lambda *_: Result({}, {}))
    with pytest.warns(DeprecationWarning, match="'straight' of EvaluateConfig is deprecated .* 'min_cosine'"):
        result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert received == [EvaluateConfig(min_cosine=0.5)]
