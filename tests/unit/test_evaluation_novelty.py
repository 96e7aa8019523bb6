"""Copies of meta-training weights are detected, for any order of their hidden units."""

import pytest
import torch

from metaopt.core.errors import TrajectoryError
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation import runner
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.novelty import SeenWeights, hidden_layers, match_units, permute_units
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.generative import get_optimizer_model
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.extrapolation import HoldConfig
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.reporting.report import report_markdown
from metaopt.targets import get_target_model
from metaopt.tasks import load_task
from metaopt.trajectories import Trajectory
from metaopt.weights.layout import Layout
from metaopt.workflows.evaluate_optimizer import compare


class Copies(GenerativeOptimizer):
    """Returns the same weights for every history."""

    Config = HoldConfig

    def __init__(self, weights):
        super().__init__()
        self.config, self.weights = HoldConfig(), weights

    def extrapolate(self, history, t_history, t_end, layout):
        return self.weights.expand(len(history), -1)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    config = TrainTargetConfig(
        run_name="seen",
        target_model="MLP",
        target_options={"widths": [8, 6]},
        lr=0.01,
        epochs=2,
        runs=2,
        trajectory_dir=folder / "trajectories",
        checkpoint_dir=folder / "checkpoints",
    )
    train_targets(config, SilentTracker())
    return folder / "trajectories" / "seen"


def case(seen, **changes):
    options = {
        "target_model": "MLP",
        "target_options": {"widths": [8, 6]},
        "lr": 0.01,
        "steps": 24,
        "every": 8,
        "stride": 4,
        "evaluate_every": 12,
        "seeds": 2,
        "controls": False,
        "cache_dir": None,
        "seen": str(seen),
    }
    return EvaluateConfig.from_mapping({**options, **changes})


@pytest.mark.parametrize(
    ("name", "options", "units"),
    [
        ("MLP", {"widths": [8, 6]}, [8, 6]),
        ("ConvNet", {"widths": [3, 5]}, [3, 5]),
        ("ConvNet", {"widths": [3, 5], "norm": "batch"}, [3, 5]),
        ("TargetCNN", {}, None),
    ],
)
def test_hidden_units_can_be_permuted(name, options, units):
    model = get_target_model(name, **options).eval()
    layout, inputs = Layout.of(model), torch.randn(4, 1, 28, 28)
    weights, before = layout.read(model), model(inputs)
    layers = hidden_layers(layout)
    assert units is None or [layer.units for layer in layers] == units
    permuted = weights
    for layer in layers:
        permuted = permute_units(permuted, layout, layer, torch.randperm(layer.units))
    layout.write(model, permuted)
    assert torch.allclose(model(inputs), before, atol=1e-4)
    assert not torch.equal(permuted, weights)
    assert torch.equal(match_units(permuted, weights, layout, layers), weights)


@pytest.mark.parametrize("name", ["GPT", "VisionTransformer", "ResNet18"])
def test_networks_that_are_not_sequential_have_no_hidden_layers(name):
    assert hidden_layers(Layout.of(get_target_model(name))) is None


def test_copies_have_a_small_distance_and_other_predictions_do_not(seen):
    torch.manual_seed(1)
    trajectory = Trajectory.open(seen / "seed_0")
    layout, copy = trajectory.layout, trajectory.weights(-1)
    for layer in hidden_layers(layout):
        copy = permute_units(copy, layout, layer, torch.randperm(layer.units))
    novelty = compare(case(seen), Copies(copy), SilentTracker()).novelty
    assert novelty.permuted
    assert novelty.snapshots == sum(min(8, len(Trajectory.open(seen / f"seed_{seed}"))) for seed in (0, 1))
    assert max(novelty.nearest) < 1e-5
    assert min(novelty.of_states) > 0.3
    line = compare(case(seen), get_optimizer_model("Line"), SilentTracker())
    assert min(line.novelty.nearest) > 0.3
    assert "## Novelty" in report_markdown(line)
    assert line.to_mapping()["novelty"]["permuted"] is True


def test_trajectories_of_other_networks_are_rejected(seen):
    config = case(seen, target_options={"widths": [9]})
    with pytest.raises(TrajectoryError, match="has the layout of MLP"):
        SeenWeights(RunSetup(config, load_task("digits"), 0), config.seen)


def test_a_folder_without_trajectories_is_rejected_before_training(tmp_path, monkeypatch):
    monkeypatch.delattr(runner, "train_contender")
    with pytest.raises(TrajectoryError, match="no trajectory"):
        compare(case(tmp_path / "nothing"), get_optimizer_model("Hold"), SilentTracker())
