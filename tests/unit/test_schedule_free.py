"""Schedule-free base optimizers in phase 1: training, evaluation mode for losses and snapshots, and resuming."""

from dataclasses import replace

import pytest
import torch
from torch.optim import Optimizer

from metaopt.core.tracker import SilentTracker
from metaopt.optimizers import build_optimizer, evaluation_mode
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.targets import get_target_model
from metaopt.tasks import load_task
from metaopt.tasks.measure import measure
from metaopt.trajectories import Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint
from metaopt.weights.model_files import load_model_weights

LEARNING_RATES = {"AdamWScheduleFree": "3e-2", "RAdamScheduleFree": "3e-2", "SGDScheduleFree": "0.3"}

every = pytest.mark.parametrize("name", LEARNING_RATES)


@pytest.fixture
def config(tmp_path, name):
    return TrainTargetConfig(
        run_name="schedule-free",
        target_model="MLP",
        target_options={"widths": [8]},
        base_optimizer=name,
        lr=LEARNING_RATES[name],
        epochs=2,
        snapshot_every=4,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def build(trajectory):
    return get_target_model(trajectory.run["target_model"], **trajectory.run["target_config"])


@every
def test_training_reduces_the_loss(config):
    (folder,) = train_targets(replace(config, epochs=3), SilentTracker())
    trajectory = Trajectory.open(folder)
    assert trajectory.losses(-1)["val_loss"] < 0.95 * trajectory.losses(0)["val_loss"]
    assert trajectory.steps[:4] == [0, 4, 8, 12]


@every
def test_recorded_losses_are_those_of_the_recorded_weights(config):
    (folder,) = train_targets(config, SilentTracker())
    trajectory, task = Trajectory.open(folder), load_task("digits")
    model = build(trajectory)
    load_model_weights(model, trajectory.snapshots[-1].path)
    figures = measure(model, task, task.splits["validation"].in_order(task.rows_at_once))
    assert figures["loss"] == trajectory.losses(-1)["val_loss"]


@every
def test_snapshots_contain_the_evaluation_weights_and_checkpoints_the_training_weights(config):
    (folder,) = train_targets(config, SilentTracker())
    trajectory = Trajectory.open(folder)
    state, _ = load_checkpoint(config.checkpoint_dir / "schedule-free" / "seed_0" / "checkpoint.safetensors")
    model = build(trajectory)
    optimizer: Optimizer = build_optimizer(config.base_optimizer, model.parameters(), 1.0, {})
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["base_optimizer"])
    training, recorded = trajectory.layout.read(model), trajectory.weights(-1)
    with evaluation_mode(optimizer):
        torch.testing.assert_close(trajectory.layout.read(model), recorded, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(training, recorded, rtol=1e-3, atol=1e-4)


@every
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config, tmp_path):
    (whole,) = train_targets(replace(config, epochs=4, trajectory_dir=tmp_path / "whole"), SilentTracker())
    train_targets(config, SilentTracker())
    (resumed,) = train_targets(replace(config, epochs=4, resume=True), SilentTracker())
    assert [path.name for path in sorted(whole.iterdir())] == [path.name for path in sorted(resumed.iterdir())]
    assert all(path.read_bytes() == (resumed / path.name).read_bytes() for path in whole.iterdir())


@every
def test_evaluation_does_not_change_the_training(config):
    (often,) = train_targets(config, SilentTracker())
    (rarely,) = train_targets(replace(config, run_name="rarely", snapshot_every=0), SilentTracker())
    assert torch.equal(Trajectory.open(often).weights(-1), Trajectory.open(rarely).weights(-1))
