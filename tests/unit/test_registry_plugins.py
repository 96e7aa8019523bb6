"""A plug-in package adds a target, a task and optimizers of both kinds without a change to metaopt."""

import importlib
import sys
from textwrap import dedent

import pytest
import torch

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.core.tracker import SilentTracker
from metaopt.generative import GENERATIVE_OPTIMIZERS, get_optimizer_model
from metaopt.optimizers import BASE_OPTIMIZERS, build_optimizer
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.targets import TARGETS, get_target_model
from metaopt.tasks import TASKS, load_task
from metaopt.trajectories import Trajectory
from metaopt.weights.layout import Layout

CODE = '''
import torch
from torch import nn

from metaopt.core.config import Config, option
from metaopt.generative import GenerativeOptimizer
from metaopt.tasks import Batch, Classification, SplitConfig


class LineConfig(Config):
    bias: bool = option(default=True, help="Whether the layer has a constant.")


class Linear(nn.Linear):
    Config = LineConfig

    def __init__(self, config=LineConfig()):
        super().__init__(2, 2, bias=config.bias)


class Sides(Classification):
    """Classify points by their side of a line."""

    Config = SplitConfig
    topology = "mlp"

    def __init__(self, config):
        points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        labels = (points.sum(1) > 0).long()
        super().__init__(Batch(points[:30], labels[:30]), Batch(points[30:], labels[30:]), 2, config)

    @property
    def model_facts(self):
        return {}


class SignDescent(torch.optim.Optimizer):
    """Steps of constant length along the sign of the gradient."""

    def __init__(self, params, lr=1e-3, flip=False):
        super().__init__(params, {"lr": lr, "flip": flip})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure and closure()
        for group in self.param_groups:
            for weight in group["params"]:
                weight.sub_(weight.grad.sign(), alpha=-group["lr"] if group["flip"] else group["lr"])
        return loss


class HalveConfig(Config):
    share: float = option(default=0.5, help="Remaining share.", above=0.0)


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
Linear = metaopt_thirdparty:Linear

[metaopt.tasks]
sides = metaopt_thirdparty:Sides

[metaopt.base_optimizers]
SignDescent = metaopt_thirdparty:SignDescent

[metaopt.generative]
Halve = metaopt_thirdparty:Halve
"""

WRONG_ENTRY_POINTS = """
[metaopt.targets]
wrong = metaopt_thirdparty:Sides
bare = torch.nn:Linear

[metaopt.tasks]
wrong = metaopt_thirdparty:Halve
bare = metaopt.tasks:Task
words = metaopt_thirdparty:CODE

[metaopt.generative]
wrong = metaopt_thirdparty:Linear
function = metaopt_thirdparty:option
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip installs it, in a folder on `sys.path`."""
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
@pytest.mark.parametrize(
    ("build", "name", "base"),
    [
        (get_target_model, "wrong", "Module"),
        (get_target_model, "bare", "Module"),
        (load_task, "wrong", "Task"),
        (load_task, "bare", "Task"),
        (load_task, "words", "Task"),
        (get_optimizer_model, "wrong", "GenerativeOptimizer"),
        (get_optimizer_model, "function", "GenerativeOptimizer"),
    ],
)
def test_a_plugin_of_another_kind_is_an_error(tmp_path, build, name, base):
    with (tmp_path / "metaopt_thirdparty.py").open("a") as code:
        code.write("CODE = 'a text'\n")
    (tmp_path / "metaopt_thirdparty-1.0.dist-info/entry_points.txt").write_text(WRONG_ENTRY_POINTS)
    with pytest.raises(InvalidConfig, match=f"{name}.* of metaopt-thirdparty 1.0 is .*expected a subclass of {base} "):
        build(name)


@pytest.mark.usefixtures("package")
def test_names_of_plugins_are_listed_with_those_of_metaopt():
    assert {"Linear", "TargetCNN"} <= set(TARGETS.names())
    assert {"sides", "digits"} <= set(TASKS.names())
    assert {"SignDescent", "Adam"} <= set(BASE_OPTIMIZERS.names())
    assert {"Halve", "Hold"} <= set(GENERATIVE_OPTIMIZERS.names())
    assert "SignDescent" not in GENERATIVE_OPTIMIZERS.names()


@pytest.mark.usefixtures("package")
def test_plugins_come_from_their_distribution():
    assert TARGETS.origin("Linear") == "metaopt-thirdparty 1.0"
    assert TASKS.origin("digits") == "metaopt"
    assert BASE_OPTIMIZERS.origin("SignDescent") == "metaopt-thirdparty 1.0"
    assert BASE_OPTIMIZERS.origin("Adam") == f"torch {importlib.metadata.version('torch')}"


@pytest.mark.usefixtures("package")
def test_plugins_are_built_with_their_own_configuration():
    task, target = load_task("sides", meta_fraction=0.4), get_target_model("Linear", bias=False)
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
def test_a_base_optimizer_is_built_with_its_keyword_arguments():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = build_optimizer("SignDescent", [weight], lr=0.5, options={"flip": True})
    weight.grad = torch.tensor([3.0, -0.1])
    optimizer.step()
    assert weight.tolist() == [0.5, -0.5]
    with pytest.raises(InvalidConfig, match=r"SignDescent .*momentum"):
        build_optimizer("SignDescent", [weight], lr=0.5, options={"momentum": 0.9})


@pytest.mark.usefixtures("package")
def test_a_base_optimizer_trains_a_target(tmp_path):
    config = TrainTargetConfig(
        run_name="sides",
        task="sides",
        target_model="Linear",
        base_optimizer="SignDescent",
        base_optimizer_options="flip=true",
        lr=0.01,
        batch_size=10,
        epochs=2,
        snapshot_every=1,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )
    (folder,) = train_targets(config, SilentTracker())
    trajectory = Trajectory.open(folder)
    assert trajectory.run["base_optimizer"] == "SignDescent"
    changes = (trajectory.weights(1) - trajectory.weights(0)).abs()
    torch.testing.assert_close(changes, torch.full_like(changes, 0.01))


@pytest.mark.usefixtures("package")
def test_nearest_names_include_those_of_plugins():
    with pytest.raises(UnknownName, match="did you mean Linear"):
        get_target_model("Liner")
    with pytest.raises(UnknownName, match="did you mean SignDescent"):
        build_optimizer("SignDecent", [], lr=0.1, options={})


def test_without_the_package_the_name_is_unknown():
    with pytest.raises(UnknownName, match="unknown target model 'Linear'"):
        get_target_model("Linear")
