"""Copies of what was seen are found out, in whatever order their hidden units stand."""

import pytest
import torch

from metaopt.core.errors import TrajectoryError
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation import runner as contest
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.novelty import SeenWeights, chain, matched, permuted
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
    """Answers with weights that it has learned by heart."""

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
def test_hidden_units_can_change_places(name, options, units):
    model = get_target_model(name, **options).eval()
    layout, inputs = Layout.of(model), torch.randn(4, 1, 28, 28)
    weights, before = layout.read(model), model(inputs)
    links = chain(layout)
    assert units is None or [link.units for link in links] == units
    moved = weights
    for link in links:
        moved = permuted(moved, layout, link, torch.randperm(link.units))
    layout.write(model, moved)
    assert torch.allclose(model(inputs), before, atol=1e-4)
    assert not torch.equal(moved, weights)
    assert torch.equal(matched(moved, weights, layout, links), weights)


@pytest.mark.parametrize("name", ["GPT", "VisionTransformer", "ResNet18"])
def test_what_is_no_chain_is_not_taken_for_one(name):
    assert chain(Layout.of(get_target_model(name))) is None


def test_copies_are_found_out_and_honest_predictions_are_not(seen):
    torch.manual_seed(1)
    trajectory = Trajectory.open(seen / "seed_0")
    layout, copy = trajectory.layout, trajectory.weights(-1)
    for link in chain(layout):
        copy = permuted(copy, layout, link, torch.randperm(link.units))
    novelty = compare(case(seen), Copies(copy), SilentTracker()).novelty
    assert novelty.permuted
    assert novelty.snapshots == sum(min(8, len(Trajectory.open(seen / f"seed_{seed}"))) for seed in (0, 1))
    assert max(novelty.nearest) < 1e-5
    assert min(novelty.of_states) > 0.3
    honest = compare(case(seen), get_optimizer_model("Line"), SilentTracker())
    assert min(honest.novelty.nearest) > 0.3
    assert "## Novelty" in report_markdown(honest)
    assert honest.to_mapping()["novelty"]["permuted"] is True


def test_trajectories_of_other_networks_are_refused(seen):
    config = case(seen, target_options={"widths": [9]})
    with pytest.raises(TrajectoryError, match="has the layout of MLP"):
        SeenWeights(RunSetup(config, load_task("digits"), 0), config.seen)


def test_a_folder_without_trajectories_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.delattr(contest, "train_contender")
    with pytest.raises(TrajectoryError, match="no trajectory"):
        compare(case(tmp_path / "nothing"), get_optimizer_model("Hold"), SilentTracker())
