"""Runs that train as one batched network give the trajectories of runs trained alone."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import RunsFailed
from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.trajectories import Trajectory


@pytest.fixture
def config(tmp_path):
    return TrainTargetConfig(
        run_name="some",
        target_model="MLP",
        target_options={"widths": [16, 8]},
        runs=3,
        lr="5e-4:5e-3",
        epochs=4,
        snapshot_every=25,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def record(config, name, **change):
    folders = train_targets(replace(config, run_name=name, **change), SilentTracker())
    return [Trajectory.open(folder) for folder in folders]


def largest_difference(some, others):
    assert len(some) == len(others)
    pairs = [(a, b, index) for a, b in zip(some, others, strict=True) for index in range(len(a))]
    assert all(a.steps == b.steps and a.run == b.run for a, b, _ in pairs)
    weights = max(float((a.weights(index) - b.weights(index)).abs().max()) for a, b, index in pairs)
    buffers = [
        float((value.double() - b.buffers(index)[name].double()).abs().max())
        for a, b, index in pairs
        for name, value in a.buffers(index).items()
    ]
    return max([weights, *buffers])


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "Rprop"])
def test_batched_runs_equal_single_runs_with_any_base_optimizer(config, optimizer):
    config = replace(config, base_optimizer=optimizer)
    alone, together = record(config, "alone"), record(config, "together", vectorize=2)
    assert alone[0].steps[-1] >= 50
    assert largest_difference(alone, together) < 1e-5


def test_batched_runs_equal_single_runs_with_convolutions_and_batchnorm(config):
    options = {"widths": [4, 6], "norm": "batch"}
    config = replace(config, target_model="ConvNet", target_options=options, base_optimizer="SGD", lr="1e-2")
    assert largest_difference(record(config, "alone"), record(config, "together", vectorize=3)) < 1e-5


def test_batched_runs_keep_frozen_weights(config):
    config = replace(config, space="layers.3", epochs=1)
    alone, together = record(config, "alone"), record(config, "together", vectorize=3)
    assert largest_difference(alone, together) < 1e-5
    assert [each.frozen_digest for each in alone] == [each.frozen_digest for each in together]


def test_a_stopped_group_resumes_each_run_from_its_own_step(config):
    whole = record(config, "whole", vectorize=3)
    record(config, "stopped", vectorize=3, epochs=2)
    record(replace(config, run_name="stopped"), "stopped", runs=1, epochs=3, resume=True)  # one run is ahead
    assert largest_difference(whole, record(config, "stopped", vectorize=3, resume=True)) < 1e-5


def test_a_diverged_run_does_not_stop_the_others(config):
    config = replace(config, base_optimizer="SGD", lr="1e-2:1e20", runs=4, epochs=1)
    with pytest.raises(RunsFailed, match=r"of 4 runs failed \(random seed .*steps with lr") as failure:
        record(config, "together", vectorize=4)
    whole = [path for path in (config.trajectory_dir / "together").glob("seed_*") if (path / "task.json").exists()]
    assert 1 <= len(whole) <= 3
    assert f"{4 - len(whole)} of 4" in str(failure.value)
    seed = int(whole[0].name.removeprefix("seed_"))
    alone = record(config, "alone", runs=1, seed=seed)
    assert largest_difference(alone, [Trajectory.open(whole[0])]) < 1e-5


def test_lbfgs_is_rejected_with_a_remedy(config):
    with pytest.raises(RunsFailed, match="Set vectorize=1"):
        record(replace(config, base_optimizer="LBFGS"), "refused", vectorize=3)


def test_a_network_that_draws_random_numbers_is_rejected_with_a_remedy(config, tmp_path, monkeypatch):
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n"
        "def build(in_features, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(in_features, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(config, target_model="dropping:build", target_options={}, epochs=1)
    with pytest.raises(RunsFailed, match="Set vectorize=1"):
        record(config, "refused", vectorize=3)
    assert len(record(config, "alone")) == 3


def test_the_standard_deviation_of_loss_changes_is_stored_with_the_trajectory(config):
    (trajectory,) = record(config, "one", runs=1)
    assert trajectory.task["kind"] == "classification"
    assert 0 < trajectory.task["loss_change_std"] < 1
    assert torch.tensor(trajectory.task["baseline_loss"]).log() < 1
