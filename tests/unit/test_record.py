"""Phase 1 records trajectories, rejects invalid configurations, and keeps what it recorded when it fails."""

import json
from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import (
    CheckpointError,
    Diverged,
    InvalidConfig,
    MetaoptError,
    RunNameError,
    TrajectoryError,
    UnknownName,
)
from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.targets import get_target_model
from metaopt.trajectories import Trajectory
from metaopt.weights.model_files import load_model_weights

BATCHES = 15  # of 64 among the 945 training images of digits


class RecordingTracker(SilentTracker):
    """Keeps everything in memory."""

    def __init__(self):
        self.values, self.steps, self.children = {}, [], {}

    def params(self, values):
        self.values.update(values)

    def metrics(self, values, step):
        self.steps.append((step, set(values)))

    def text(self, text, name):
        self.values[name] = text

    def files(self, paths, folder):
        self.values[folder] = [path.name for path in paths]

    def figure(self, figure, name):
        self.values[name] = figure

    def child(self, name):
        from contextlib import nullcontext

        return nullcontext(self.children.setdefault(name, RecordingTracker()))


@pytest.fixture
def config(tmp_path):
    return TrainTargetConfig(
        run_name="mlp",
        target_model="MLP",
        target_options={"widths": [8]},
        epochs=2,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def test_a_run_records_a_trajectory_with_its_facts(config):
    tracker = RecordingTracker()
    (folder,) = train_targets(config, tracker)
    trajectory = Trajectory.open(folder)
    assert trajectory.name == "mlp/seed_0"
    assert trajectory.steps == [0, BATCHES, 2 * BATCHES]
    assert [snapshot.epoch for snapshot in trajectory.snapshots] == [0, 1, 2]
    assert trajectory.losses(2)["val_loss"] < trajectory.losses(0)["val_loss"]
    assert {"train_loss", "val_loss"} == set(trajectory.losses(1))
    model = get_target_model(trajectory.run["target_model"], **trajectory.run["target_config"])
    load_model_weights(model, trajectory.snapshots[1].path)
    assert torch.equal(trajectory.layout.read(model), trajectory.weights(1))
    assert tracker.steps[0] == (0, {"val_loss", "val_accuracy", "epoch"})
    assert tracker.steps[1] == (BATCHES, {"train_loss", "val_loss", "val_accuracy", "epoch", "seconds"})
    beside = ["task.json", "origin.json"]
    assert tracker.values["trajectory"] == [*(snapshot.path.name for snapshot in trajectory.snapshots), *beside]
    assert tracker.values["lr_drawn"] == 1e-3
    assert "losses" in tracker.values


def test_snapshots_are_also_taken_every_few_steps(config):
    (folder,) = train_targets(replace(config, snapshot_every=10), SilentTracker())
    assert Trajectory.open(folder).steps == [0, 10, 15, 20, 30]


def test_several_runs_draw_learning_rates_and_repeat_from_their_stored_configurations(config, tmp_path):
    tracker, config = RecordingTracker(), replace(config, runs=3, lr="1e-4:1e-2", seed=5, epochs=1)
    folders = train_targets(config, tracker)
    assert [folder.name for folder in folders] == ["seed_5", "seed_6", "seed_7"]
    rates = [Trajectory.open(folder).run["lr"] for folder in folders]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    stored = json.loads(tracker.children["mlp seed 6"].values["config.json"])
    again = TrainTargetConfig.from_mapping({**stored, "trajectory_dir": str(tmp_path / "again")})
    (folder,) = train_targets(again, SilentTracker())
    for path in sorted(folders[1].iterdir()):
        assert path.read_bytes() == (folder / path.name).read_bytes()


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.01), ("LBFGS", 0.0001), ("Rprop", 0.01)])
def test_any_torch_optimizer_trains(config, optimizer, lr):
    (folder,) = train_targets(replace(config, base_optimizer=optimizer, lr=lr, epochs=1), SilentTracker())
    trajectory = Trajectory.open(folder)
    assert trajectory.losses(1)["val_loss"] < trajectory.losses(0)["val_loss"]


def test_a_resumed_run_gives_the_bytes_of_an_uninterrupted_one(config, tmp_path):
    whole = train_targets(replace(config, epochs=4, trajectory_dir=tmp_path / "whole"), SilentTracker())[0]
    train_targets(config, SilentTracker())
    resumed = train_targets(replace(config, epochs=4, resume=True), SilentTracker())[0]
    assert [path.name for path in sorted(whole.iterdir())] == [path.name for path in sorted(resumed.iterdir())]
    assert all(path.read_bytes() == (resumed / path.name).read_bytes() for path in whole.iterdir())


def test_averaging_records_the_ema_of_the_weights_also_after_a_resume(config, tmp_path):
    every_step = replace(config, snapshot_every=1, epochs=1)
    weights = Trajectory.open(train_targets(every_step, SilentTracker())[0])
    averaged = replace(every_step, averaging=0.9, run_name="averages", epochs=2)
    average = Trajectory.open(train_targets(averaged, SilentTracker())[0])
    assert (weights.averaging, average.averaging) == (0.0, 0.9)
    assert torch.equal(average.weights(0), weights.weights(0))
    assert torch.equal(average.weights(1), weights.weights(1))
    expected = (0.9 * weights.weights(1) + weights.weights(2)) / 1.9
    torch.testing.assert_close(average.weights(2), expected)
    train_targets(replace(averaged, run_name="two", epochs=1), SilentTracker())
    again = Trajectory.open(train_targets(replace(averaged, run_name="two", resume=True), SilentTracker())[0])
    assert all(torch.equal(again.weights(index), average.weights(index)) for index in range(len(average)))


@pytest.mark.parametrize("keep_last", [0, 1, 2])
def test_a_finished_recording_without_its_last_snapshots_is_neither_read_nor_resumed(config, keep_last):
    config = replace(config, snapshot_every=5, keep_last=keep_last)
    (folder,) = train_targets(config, SilentTracker())
    assert Trajectory.open(folder).steps[-1] == 2 * BATCHES
    train_targets(replace(config, epochs=3, resume=True), SilentTracker())
    assert Trajectory.open(folder).steps[-1] == 3 * BATCHES
    (folder / f"step_{3 * BATCHES:08d}.safetensors").unlink()
    if keep_last != 1:  # else nothing is left
        with pytest.raises(TrajectoryError, match="its recording ended at step 45"):
            Trajectory.open(folder)
        with pytest.raises(CheckpointError, match=r"snapshots after step 40 are missing.*is of step 45.*--overwrite"):
            train_targets(replace(config, epochs=4, resume=True), SilentTracker())


def test_resuming_a_complete_run_changes_nothing_and_logs_it(config, caplog):
    (folder,) = train_targets(config, SilentTracker())
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    tracker = RecordingTracker()
    with caplog.at_level("INFO"):
        assert train_targets(replace(config, resume=True), tracker) == [folder]
    assert "is complete" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert tracker.steps == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lr": "2e-3"}, r"run\.lr is 0\.001, expected 0\.002"),
        ({"target_options": {"widths": [9]}}, r"run\.target_config\.widths is \[8\], expected \[9\]"),
        ({"snapshot_every": 3}, r"snapshot_every is 0, expected 3"),
        ({"base_optimizer": "SGD"}, r"run\.base_optimizer is 'Adam'"),
    ],
)
def test_resuming_with_other_settings_raises_and_names_the_field(config, change, field):
    train_targets(config, SilentTracker())
    with pytest.raises(CheckpointError, match=field):
        train_targets(replace(config, epochs=3, resume=True, **change), SilentTracker())


def test_the_checkpoint_of_an_overwritten_run_is_not_resumed(config):
    train_targets(replace(config, runs=2), SilentTracker())
    (folder,) = train_targets(replace(config, overwrite=True, lr="1e-2"), SilentTracker())
    first, second = train_targets(replace(config, resume=True, runs=2, lr="1e-2"), SilentTracker())
    assert first == folder
    assert Trajectory.open(second).run["lr"] == 1e-2


@pytest.mark.parametrize("change", [{"resume": True, "epochs": 3}, {"overwrite": True}])
def test_temporary_files_of_a_killed_process_are_removed(config, change):
    train_targets(config, SilentTracker())
    left = config.checkpoint_dir / "mlp" / "seed_0" / ".checkpoint.safetensors.x1.part"
    left.write_text("x", encoding="utf-8")
    train_targets(replace(config, **change), SilentTracker())
    assert not left.exists()


def test_a_taken_run_name_is_rejected(config):
    train_targets(config, SilentTracker())
    with pytest.raises(RunNameError, match="--resume"):
        train_targets(config, SilentTracker())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"task": "digit"}, UnknownName, "did you mean digits"),
        ({"target_model": "TargetCN"}, UnknownName, "did you mean TargetCNN"),
        ({"base_optimizer": "Adm"}, UnknownName, "did you mean"),
        ({"base_optimizer_options": {"momentun": 1}}, InvalidConfig, "momentun"),
        ({"target_options": {"wides": [1]}}, InvalidConfig, "did you mean widths"),
        ({"target_model": "GPT", "target_options": {"n_layer": 1000, "n_embd": 2**16}}, InvalidConfig, "GB of memory"),
        (
            {"target_model": "GPT", "target_options": {"n_layer": 1}},
            InvalidConfig,
            "GPT does not fit the data",
        ),
        ({"target_options": {"in_features": 3}}, InvalidConfig, r"for inputs \[32, 1, 8, 8\] of float32.*RuntimeError"),
        ({"target_options": {"classes": 2}}, InvalidConfig, r"labels \[32\] of int64 it raises IndexError"),
        ({"data_dir": "x"}, InvalidConfig, "leave it out"),
        ({"run_name": "../x"}, RunNameError, "cannot be a folder"),
        ({"resume": True, "run_name": "new"}, RunNameError, "nothing to resume"),
    ],
)
def test_an_invalid_configuration_is_rejected_before_anything_is_overwritten(config, change, error, message):
    (folder,) = train_targets(replace(config, epochs=1), SilentTracker())
    before = sorted(config.trajectory_dir.rglob("*"))
    with pytest.raises(error, match=message):
        train_targets(replace(config, **{"overwrite": not change.get("resume"), **change}), SilentTracker())
    assert sorted(config.trajectory_dir.rglob("*")) == before
    assert len(Trajectory.open(folder)) == 2


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"epochs": -1}, {"lr": 0}, {"lr": "-1e-3"}, {"lr": "1e-2:1e-3"}, {"lr": "nan"}, {"batch_size": 0}],
)
def test_invalid_values_are_rejected(change):
    with pytest.raises(InvalidConfig, match=next(iter(change))):
        TrainTargetConfig(**change)


@pytest.mark.parametrize("lr", ["1e20", "1e38"])
def test_a_diverged_run_keeps_its_finite_snapshots(config, lr):
    with pytest.raises(Diverged, match=r"steps with lr .* kept in .*Try a lower lr"):
        train_targets(replace(config, lr=lr, base_optimizer="SGD", snapshot_every=1), SilentTracker())
    trajectory = Trajectory.open(config.trajectory_dir / "mlp" / "seed_0")
    assert trajectory.steps[0] == 0
    assert all(torch.isfinite(trajectory.weights(index)).all() for index in range(len(trajectory)))


def test_diverged_is_an_error_of_metaopt():
    assert issubclass(Diverged, MetaoptError)
