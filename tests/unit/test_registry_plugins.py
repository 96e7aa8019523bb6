"""A third party adds a target, a task and an optimizer from a package of its own, without touching ours."""

import importlib
import sys
from textwrap import dedent

import pytest
import torch

from metaopt.core.errors import UnknownName
from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.targets import TARGETS, get_target_model
from metaopt.tasks import TASKS, load_task
from metaopt.weights.layout import Layout

CODE = '''
import torch
from torch import nn

from metaopt.core.config import Config, option
from metaopt.generative import GenerativeOptimizer
from metaopt.tasks.base import Batch, SplitConfig
from metaopt.tasks.classification import Classification


class LineConfig(Config):
    bias: bool = option(default=True, help="Whether there is a constant.")


class Straight(nn.Linear):
    Config = LineConfig

    def __init__(self, config):
        super().__init__(2, 2, bias=config.bias)


class Sides(Classification):
    """Which side of a line a point lies on."""

    Config = SplitConfig

    def __init__(self, config):
        points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        labels = (points.sum(1) > 0).long()
        super().__init__(Batch(points[:30], labels[:30]), Batch(points[30:], labels[30:]), 2, config)


class HalveConfig(Config):
    share: float = option(default=0.5, help="What is left.", above=0.0)


class Halve(GenerativeOptimizer):
    Config = HalveConfig

    def __init__(self, config):
        super().__init__()
        self.config = config

    def extrapolate(self, history, t_history, t_end, layout):
        return history[:, -1] * self.config.share
'''

ENTRY_POINTS = """
[metaopt.targets]
Straight = metaopt_thirdparty:Straight

[metaopt.tasks]
sides = metaopt_thirdparty:Sides

[metaopt.generative]
Halve = metaopt_thirdparty:Halve
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip would have installed it, in a folder of its own."""
    (tmp_path / "metaopt_thirdparty.py").write_text(CODE)
    info = tmp_path / "metaopt_thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: metaopt-thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(dedent(ENTRY_POINTS))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("metaopt_thirdparty", None)


@pytest.mark.usefixtures("package")
def test_names_of_plugins_stand_among_ours():
    assert {"Straight", "TargetCNN"} <= set(TARGETS.names())
    assert {"sides", "digits"} <= set(TASKS.names())
    assert {"Halve", "Hold"} <= set(GENERATIVE_OPTIMIZERS.names())


@pytest.mark.usefixtures("package")
def test_plugins_come_from_their_distribution():
    assert TARGETS.origin("Straight") == "metaopt-thirdparty 1.0"
    assert TASKS.origin("digits") == "metaopt"


@pytest.mark.usefixtures("package")
def test_plugins_are_built_with_their_own_configuration():
    task, target = load_task("sides", meta_fraction=0.4), get_target_model("Straight", bias=False)
    inputs, labels = task.splits["train"][:]
    layout = Layout.of(target)
    weights = layout.read(target)
    halved = get_optimizer_model("Halve", share=0.25).predict(
        weights[None, None], torch.zeros(1, 1), torch.ones(1), layout
    )
    assert len(inputs) == 15
    assert layout.size == 4
    assert task.loss(target(inputs), labels).isfinite()
    assert torch.equal(halved[0], weights * 0.25)


@pytest.mark.usefixtures("package")
def test_nearest_names_include_those_of_plugins():
    with pytest.raises(UnknownName, match="did you mean Straight"):
        get_target_model("Straigt")


def test_without_the_package_the_name_is_unknown():
    with pytest.raises(UnknownName, match="unknown target model 'Straight'"):
        get_target_model("Straight")
