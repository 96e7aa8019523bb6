"""`metaopt list` shows names, their packages, their options, and plug-ins that cannot be imported."""

from importlib.metadata import EntryPoint, version

import pytest
from click.testing import CliRunner

from metaopt.cli.list import KINDS, command
from metaopt.core import registry
from metaopt.core.errors import MetaoptError


def listed(*arguments):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def rows(*arguments):
    """The cells of each row, by the name in the first."""
    return {cells[0]: cells[1:] for cells in (line.split() for line in listed(*arguments).splitlines()) if cells}


def test_every_name_is_listed_with_its_package_and_one_line():
    output = listed()
    assert all(name in output for kind in KINDS.values() for name in kind.names())
    assert rows("optimizers")["Adam"][:2] == ["torch", version("torch")]
    assert rows("optimizers")["DeltaMomentum"][0] == "metaopt"
    assert "exactly" not in output  # a further line of a docstring


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone_can_be_listed(kind):
    shown = rows(kind)
    assert set(KINDS[kind].names()) <= set(shown)
    assert not any(set(other.names()) & set(shown) for name, other in KINDS.items() if name != kind)


def test_patterns_of_names_are_listed_with_the_targets():
    assert {"torchvision:<name>", "transformers:<ConfigClass>", "package.module:build"} <= set(rows("targets"))


def test_one_name_shows_its_options_with_default_and_help():
    shown = rows("targets", "GPT")
    assert shown["n_layer"] == ["4", "Blocks", "[count]."]
    assert shown["tied"][0] == "true"
    assert rows("optimizers", "SGD")["momentum"] == ["0"]


def test_targets_of_libraries_and_dotted_paths_show_their_options(tmp_path, monkeypatch):
    shown = rows("targets", "transformers:GPT2Config")
    assert shown["vocab_size"] == ["50257"]
    assert shown["n_layer"] == ["12"]
    shown = rows("targets", "torchvision:resnet18")
    assert {"in_channels", "classes"} <= set(shown)
    assert not {"weights", "progress", "kwargs"} & set(shown)
    (tmp_path / "my_targets.py").write_text(
        "from torch import nn\ndef build(classes, width=8, **more):\n    'A wide network.'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    output = listed("targets", "my_targets:build")
    assert output.splitlines()[0] == "my_targets:build (my_targets): A wide network."
    assert rows("targets", "my_targets:build")["width"] == ["8"]


@pytest.mark.parametrize("name", ["transformers:GPT9Config", "torchvision:resnet", "no_such_module:build"])
def test_an_unknown_target_of_a_library_is_an_error(name):
    result = CliRunner().invoke(command, ["targets", name])
    assert isinstance(result.exception, MetaoptError)


def test_a_plug_in_that_cannot_be_imported_is_listed_with_its_error(monkeypatch):
    point = EntryPoint("Broken", "a_package_that_is_not_there:Broken", "metaopt.targets")
    ours = lambda group, name=None: [point] if group == point.group and name in (None, "Broken") else []  # noqa: E731
    monkeypatch.setattr(registry, "entry_points", ours)
    output = listed("targets")
    assert "No module named 'a_package_that_is_not_there'" in output
    assert "VisionTransformer" in output


@pytest.mark.parametrize("arguments", [("target",), ("targets", "GTP"), ("optimizers", "Adm")])
def test_an_unknown_name_is_an_error(arguments):
    assert CliRunner().invoke(command, arguments).exit_code != 0


def test_base_optimizers_and_generative_optimizers_are_two_kinds():
    base, generative = rows("optimizers"), rows("generative-optimizers")
    assert {"Adam", "SGD", "AdamWScheduleFree"} <= set(base)
    assert base["Adam"][0] == "torch"
    assert base["AdamWScheduleFree"][0] == "schedulefree"
    assert {"PerceiverOptimizer", "Hold", "Line"} <= set(generative)
    assert not {"PerceiverOptimizer", "Hold", "Line"} & set(base)


def test_a_base_optimizer_of_a_plug_in_is_listed(monkeypatch):
    point = EntryPoint("Forward", "torch.optim:SGD", "metaopt.base_optimizers")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert "Forward" in rows("optimizers")
    assert "Forward" not in rows("generative-optimizers")
