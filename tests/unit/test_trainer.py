"""Phase 2 trains on recorded trajectories, validates on held-out ones, and rejects invalid input."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt.core.control import StopRequested
from metaopt.core.errors import (
    CheckpointError,
    Diverged,
    FileFormatError,
    InvalidConfig,
    RunNameError,
    TaskDataError,
    TrajectoryError,
    UnknownName,
)
from metaopt.core.tracker import SilentTracker
from metaopt.generative.files import load_optimizer_file
from metaopt.metatraining.trained import TrainedOptimizer
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.trajectories import Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint


class RecordingTracker(SilentTracker):
    """Keeps everything in memory."""

    def __init__(self):
        self.values, self.steps, self.data, self.stored = {}, [], {}, []

    def params(self, values):
        self.values.update(values)

    def metrics(self, values, step):
        self.steps.append((step, dict(values)))

    def dataset(self, name, source, digest, context):
        self.data[name] = context

    def text(self, text, name):
        self.values[name] = text

    def files(self, paths, folder):
        self.stored.append((folder, [path.name for path in paths]))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Runs of two networks: "mlp", four times, and "wide", twice, on the same task."""
    folder = tmp_path_factory.mktemp("recorded")
    for name, width, runs in (("mlp", 8, 4), ("wide", 12, 2)):
        config = TrainTargetConfig(
            run_name=name,
            target_model="MLP",
            target_options={"widths": [width]},
            runs=runs,
            lr="1e-3:3e-3",
            epochs=4,
            checkpoint_every=4,
            trajectory_dir=folder,
            checkpoint_dir=folder / "checkpoints",
        )
        train_targets(config, SilentTracker())
    return folder


@pytest.fixture
def config(recorded, tmp_path):
    return TrainOptimizerConfig(
        run_name="mlp",
        optimizer_options={"dim": 16, "num_latents": 8, "latent_dim": 16, "hidden": 32},
        epochs=2,
        lr=5e-3,
        average=0.9,
        task_batch=64,
        trajectory_dir=recorded,
        checkpoint_dir=tmp_path / "checkpoints",
    )


def test_training_generalises_to_held_out_runs(config):
    tracker = RecordingTracker()
    trained = train_optimizer(replace(config, epochs=16), tracker)
    first, last = tracker.steps[0][1], tracker.steps[-1][1]
    assert last["val_log_loss_change"] < -0.005
    assert last["val_relative_error"] < 0.9
    assert last["val_objective"] < first["val_objective"]
    assert last["train_objective"] < first["train_objective"]
    assert trained.metrics == last
    assert (len(trained.training_names), len(trained.held_out_names)) == (3, 1)
    assert {*trained.training_names, *trained.held_out_names} == {f"mlp/seed_{seed}" for seed in range(4)}
    assert not trained.optimizer.training
    trajectory = Trajectory.open(config.trajectory_dir / trained.held_out_names[0])
    assert trained.layouts == [trajectory.layout]
    assert trained.stride == trajectory.steps[1]


def test_the_tracker_gets_metrics_parameters_data_and_checkpoints(config):
    tracker = RecordingTracker()
    trained = train_optimizer(config, tracker)
    pairs, updates = 3 * 10, 4  # in batches of 8
    assert -(-pairs // 8) == updates
    assert [step for step, _ in tracker.steps] == [updates, 2 * updates]
    assert [values["epoch"] for _, values in tracker.steps] == [0, 1]
    names = {
        f"{part}_{name}" for part in ("train", "val") for name in ("objective", "relative_error", "log_loss_change")
    }
    assert set(tracker.steps[0][1]) == names | {"seconds", "epoch"}
    assert tracker.values["optimizer.dim"] == 16
    assert tracker.data == dict.fromkeys(trained.training_names, "train") | dict.fromkeys(
        trained.held_out_names, "held-out"
    )
    assert tracker.stored == [("checkpoints/epoch_0001", ["PerceiverOptimizer_epoch_1.safetensors"])]
    assert trained.checkpoint == config.checkpoint_dir / "mlp" / "PerceiverOptimizer_epoch_1.safetensors"


def test_the_stored_configuration_gives_the_same_bytes_again(config, tmp_path):
    tracker = RecordingTracker()
    trained = train_optimizer(config, tracker)
    stored = {**json.loads(tracker.values["config.json"]), "checkpoint_dir": str(tmp_path / "again")}
    again = train_optimizer(TrainOptimizerConfig.from_mapping(stored), SilentTracker())
    assert again.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    other = train_optimizer(replace(config, seed=1, checkpoint_name="other"), SilentTracker())
    assert other.checkpoint.read_bytes() != trained.checkpoint.read_bytes()


def test_the_last_checkpoint_has_the_returned_weights(config):
    trained = train_optimizer(config, SilentTracker())
    loaded = load_optimizer_file(trained.checkpoint)
    assert all(torch.equal(each, trained.optimizer.state_dict()[name]) for name, each in loaded.state_dict().items())


@pytest.mark.parametrize(("mode", "pairs"), [("sequential", 3 * 4), ("permutation", 3 * 10)])
def test_the_training_mode_selects_the_pairs(config, mode, pairs):
    tracker = RecordingTracker()
    train_optimizer(replace(config, training_mode=mode, batch_size=1, epochs=1), tracker)
    assert tracker.steps[0][0] == pairs


def test_an_epoch_can_draw_some_of_the_pairs(config):
    tracker = RecordingTracker()
    train_optimizer(replace(config, pairs_per_epoch=10, batch_size=4), tracker)
    assert [step for step, _ in tracker.steps] == [3, 6]


@pytest.mark.parametrize("objective", ["weights", "task", "mix"])
def test_training_lowers_every_objective(config, objective):
    tracker = RecordingTracker()
    train_optimizer(replace(config, objective=objective, epochs=5), tracker)
    assert tracker.steps[-1][1]["val_objective"] < tracker.steps[0][1]["val_objective"]
    assert ("val_log_loss_change" in tracker.steps[0][1]) == (objective != "weights")


def test_networks_of_different_layouts_train_together(config):
    tracker = RecordingTracker()
    trained = train_optimizer(replace(config, run_name="mlp, wide", held_out=3, epochs=4), tracker)
    assert len({layout.size for layout in trained.layouts}) == 2
    assert len(trained.training_names) == 3
    assert {*trained.training_names, *trained.held_out_names} == {
        *(f"mlp/seed_{seed}" for seed in range(4)), *(f"wide/seed_{seed}" for seed in range(2))
    }  # fmt: skip
    assert trained.checkpoint.parent == config.checkpoint_dir / "mlp+wide"
    assert tracker.steps[-1][1]["val_objective"] < tracker.steps[0][1]["val_objective"]


def test_a_repeated_run_name_counts_once(config):
    """Else a run could train the optimizer and be held out at the same time."""
    trained = train_optimizer(replace(config, run_name="mlp,mlp", epochs=1), SilentTracker())
    assert len(trained.training_names) + len(trained.held_out_names) == 4


@pytest.mark.parametrize("name", ["Hold", "Line", "Average"])
def test_an_optimizer_without_weights_is_validated(config, name):
    tracker = RecordingTracker()
    trained = train_optimizer(replace(config, optimizer_model=name, optimizer_options={}, epochs=1), tracker)
    metrics = tracker.steps[0][1]
    assert type(trained.optimizer).__name__ == type(load_optimizer_file(trained.checkpoint)).__name__ == name
    if name == "Hold":
        assert metrics["val_relative_error"] == pytest.approx(1)
        assert metrics["val_log_loss_change"] == 0


def test_a_single_trajectory_is_not_held_out(config, recorded):
    tracker = RecordingTracker()
    one = replace(config, run_name="seed_0", trajectory_dir=recorded / "mlp", epochs=1)
    trained = train_optimizer(one, tracker)
    assert (trained.training_names, trained.held_out_names) == (["mlp/seed_0"], [])
    assert {name for name in tracker.steps[0][1] if name.startswith("val")} == set()
    assert trained.untrained == {}


def test_what_cannot_be_validated_is_said_before_the_training(config, recorded, caplog):
    caplog.set_level("INFO")
    one = replace(config, run_name="seed_0", trajectory_dir=recorded / "mlp", epochs=1)
    train_optimizer(one, SilentTracker())
    warning = next(index for index, each in enumerate(caplog.records) if "nothing is held out" in each.getMessage())
    assert "there is only 1 trajectory" in caplog.records[warning].getMessage()
    assert "--runs 4" in caplog.records[warning].getMessage()
    assert warning < next(index for index, each in enumerate(caplog.records) if "objective" in each.getMessage())
    caplog.clear()
    train_optimizer(replace(config, epochs=1), SilentTracker())
    train_optimizer(replace(config, epochs=1, held_out=0, checkpoint_name="none held out"), SilentTracker())
    assert "nothing is held out" not in caplog.text


def test_a_training_that_makes_the_optimizer_worse_says_so(config):
    class Described(SilentTracker):
        result = ""

        def describe(self, *, purpose=None, result=None, links=None):
            self.result = result or self.result

    tracker = Described()
    worse = train_optimizer(replace(config, epochs=1, lr=10.0, checkpoint_name="worse"), tracker)
    assert worse.metrics["val_objective"] > worse.untrained["val_objective"] == pytest.approx(0.3)
    assert "worse than before its training" in worse.setback
    assert worse.setback in tracker.result
    assert TrainedOptimizer.from_checkpoint(worse.checkpoint).setback == worse.setback
    assert train_optimizer(config, SilentTracker()).setback == ""


def test_a_checkpoint_contains_what_is_known_about_its_training(config):
    trained = train_optimizer(config, SilentTracker())
    read = TrainedOptimizer.from_checkpoint(trained.checkpoint)
    assert read.facts() == trained.facts()
    assert read.layouts == trained.layouts
    assert read.data == {"run_name": "mlp", "objective": "mix", "training_mode": "permutation"}


def test_a_checkpoint_of_metaopt_0_1_does_not_say_what_it_was_trained_on():
    old = Path(__file__).parents[1] / "golden/v0_1_0/checkpoints/old/PerceiverOptimizer_epoch_0.safetensors"
    with pytest.raises(CheckpointError, match="--epochs 0 --resume-from"):
        TrainedOptimizer.from_checkpoint(old)


def test_invalid_facts_of_a_training_are_rejected(config, tmp_path):
    trained = train_optimizer(config, SilentTracker())
    state, facts = load_checkpoint(trained.checkpoint)
    for change in ({"layouts": 3}, {"stride": "x"}, {"data": []}, {"training_names": [1]}, {"metrics": {"a": None}}):
        save_checkpoint(tmp_path / "changed", state, {**facts, "training": {**facts["training"], **change}})
        with pytest.raises(FileFormatError, match="invalid facts of its training"):
            TrainedOptimizer.from_checkpoint(tmp_path / "changed")


def test_a_resumed_training_gives_the_bytes_of_an_uninterrupted_one(config, tmp_path):
    every = replace(config, checkpoint_every=1)
    whole = train_optimizer(replace(every, epochs=3, checkpoint_dir=tmp_path / "whole"), SilentTracker())
    stopped = train_optimizer(replace(every, epochs=2), SilentTracker())
    tracker = RecordingTracker()
    resumed = train_optimizer(replace(every, epochs=1), tracker, resume=stopped.checkpoint)
    assert resumed.checkpoint.name == whole.checkpoint.name == "PerceiverOptimizer_epoch_2.safetensors"
    assert [values["epoch"] for _, values in tracker.steps] == [2]
    for path in whole.checkpoint.parent.glob("*.safetensors"):
        assert path.read_bytes() == (stopped.checkpoint.parent / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("checks", "name"),
    [(1, "epoch_0000_stopped"), (3, "epoch_0000_stopped"), (4, "epoch_0000"), (7, "epoch_0001_stopped")],
)
def test_a_training_that_is_asked_to_stop_resumes_to_the_bytes_of_an_uninterrupted_one(
    config, tmp_path, monkeypatch, checks, name
):
    config = replace(config, pairs_per_epoch=12, batch_size=4, epochs=3)
    whole = train_optimizer(replace(config, checkpoint_dir=tmp_path / "whole"), SilentTracker())
    requested = iter([*[False] * (checks - 1), *[True] * 9])
    control = type("Control", (), {"stop_requested": property(lambda self: next(requested))})()
    for module in ("offline", "trainer"):
        monkeypatch.setattr(f"metaopt.metatraining.{module}.control", control)
    tracker = RecordingTracker()
    with pytest.raises(StopRequested):
        train_optimizer(config, tracker)
    monkeypatch.undo()
    assert tracker.stored[-1][0] == f"checkpoints/{name}"
    stopped = config.checkpoint_folder / tracker.stored[-1][1][0]
    finished = load_checkpoint(stopped)[0]["epoch"]
    resumed = train_optimizer(replace(config, epochs=3 - finished), SilentTracker(), resume=stopped)
    assert resumed.checkpoint.name == whole.checkpoint.name
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_a_resumed_training_can_write_to_another_folder(config, tmp_path):
    first = train_optimizer(config, SilentTracker())
    elsewhere = replace(config, epochs=1, checkpoint_dir=tmp_path / "elsewhere")
    assert train_optimizer(elsewhere, SilentTracker(), resume=first.checkpoint).checkpoint.exists()
    assert len(list(first.checkpoint.parent.glob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lr": 1e-4}, r"settings\.lr is 0\.005, expected 0\.0001"),
        ({"training_mode": "sequential"}, r"settings\.training_mode is 'permutation'"),
        ({"run_name": "wide", "checkpoint_name": "mlp", "held_out": 1}, r"settings\.trajectories is"),
        ({"held_out": 2}, r"settings\.trajectories is"),
        ({"optimizer_options": {"dim": 8}}, r"optimizer\.config\.dim is 16, expected 8"),
        ({"optimizer_model": "Line", "optimizer_options": {}}, r"optimizer\.name is 'PerceiverOptimizer'"),
    ],
)
def test_resuming_with_other_settings_raises_and_keeps_the_checkpoint(config, change, field):
    checkpoint = train_optimizer(replace(config, epochs=1), SilentTracker()).checkpoint
    before = checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match=field):
        train_optimizer(replace(config, overwrite=True, **change), SilentTracker(), resume=checkpoint)
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_of_phase_1_or_a_snapshot_is_rejected(config, recorded):
    with pytest.raises(CheckpointError, match="no checkpoint of phase 2"):
        train_optimizer(config, SilentTracker(), resume=recorded / "checkpoints/mlp/seed_0/checkpoint.safetensors")
    with pytest.raises(FileFormatError, match="is a snapshot file; expected a checkpoint"):
        train_optimizer(config, SilentTracker(), resume=recorded / "mlp/seed_0/step_00000000.safetensors")
    assert not config.checkpoint_dir.exists()


def test_checkpoints_of_the_same_name_are_kept_without_overwrite(config):
    checkpoint = train_optimizer(replace(config, epochs=1), SilentTracker()).checkpoint
    with pytest.raises(RunNameError, match="is taken"):
        train_optimizer(config, SilentTracker())
    assert checkpoint.exists()
    train_optimizer(replace(config, overwrite=True), SilentTracker())
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"run_name": "mpl"}, TrajectoryError, "did you mean mlp"),
        ({"run_name": "mlp,none"}, TrajectoryError, "no trajectory 'none'"),
        ({"held_out": 4}, TrajectoryError, "cannot hold out 4 of 4"),
        ({"optimizer_model": "Perceiver"}, UnknownName, "did you mean PerceiverOptimizer"),
        ({"optimizer_options": {"dimm": 8}}, InvalidConfig, "did you mean dim"),
        ({"checkpoint_name": "a/.."}, RunNameError, "cannot be a folder"),
    ],
)
def test_an_invalid_configuration_is_rejected_before_anything_is_written(config, change, error, message):
    with pytest.raises(error, match=message):
        train_optimizer(replace(config, overwrite=True, **change), SilentTracker())
    assert not config.checkpoint_dir.exists()


@pytest.mark.parametrize("name", ["", "a,", "../x", "a, /b", " "])
def test_invalid_run_names_are_rejected(name):
    with pytest.raises(RunNameError, match="cannot be a folder"):
        TrainOptimizerConfig(run_name=name)


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"lr": 0}, {"lr": "nan"}, {"batch_size": 0}, {"average": 1}, {"training_mode": "all"},
     {"objective": "mixed"}, {"held_out": -1}],
)  # fmt: skip
def test_invalid_values_are_rejected(change):
    with pytest.raises(InvalidConfig, match=next(iter(change))):
        TrainOptimizerConfig(**change)


def test_the_averaging_of_the_optimizer_is_that_of_its_trajectories(config, tmp_path):
    averages = TrainTargetConfig(
        run_name="averages", target_model="MLP", target_options={"widths": [4]}, epochs=3, averaging=0.9, runs=2,
        trajectory_dir=config.trajectory_dir, checkpoint_dir=tmp_path / "targets",
    )  # fmt: skip
    train_targets(averages, SilentTracker())
    trained = train_optimizer(replace(config, run_name="averages", held_out=1), SilentTracker())
    assert trained.optimizer.averaging == 0.9
    assert train_optimizer(replace(config, checkpoint_name="plain"), SilentTracker()).optimizer.averaging == 0.0
    both = replace(config, run_name=f"{config.run_name},averages", checkpoint_name="both")
    with pytest.raises(TrajectoryError, match=r"has averaging 0\.9, but the optimizer expects 0 "):
        train_optimizer(both, SilentTracker())


def test_a_run_with_one_snapshot_is_rejected_by_name(config, recorded, tmp_path):
    lonely = tmp_path / "lonely" / "seed_0"
    lonely.mkdir(parents=True)
    first = "step_00000000.safetensors"
    (lonely / first).write_bytes((recorded / "mlp/seed_0" / first).read_bytes())
    with pytest.raises(TrajectoryError, match="seed_0 has one snapshot"):
        train_optimizer(replace(config, run_name="lonely", trajectory_dir=tmp_path), SilentTracker())


def test_a_damaged_snapshot_raises_with_the_name_of_the_file(config, recorded, tmp_path):
    copy = tmp_path / "damaged" / "seed_0"
    copy.mkdir(parents=True)
    paths = sorted((recorded / "mlp/seed_0").glob("*.safetensors"))
    for path in paths:
        content = bytearray(path.read_bytes())
        content[-10] ^= path == paths[2]
        (copy / path.name).write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{paths[2].name} is damaged"):
        train_optimizer(replace(config, run_name="damaged", trajectory_dir=tmp_path), SilentTracker())


def test_missing_data_raises_with_a_remedy(config, tmp_path):
    from metaopt.targets import get_target_model
    from metaopt.trajectories import Recorder
    from metaopt.weights.layout import Layout

    facts = {"widths": [4], "in_features": 784}
    model = get_target_model("MLP", **facts)
    run = {"task": "mnist", "task_config": {"data_dir": str(tmp_path)}, "target_model": "MLP", "target_config": facts}
    for step in (0, 10):
        Recorder(tmp_path / "gone" / "seed_0", run, Layout.of(model)).record(model, step, 0, {})
    config = replace(config, run_name="gone", trajectory_dir=tmp_path)
    with pytest.raises(TaskDataError, match="The objective `weights` needs neither task nor target"):
        train_optimizer(config, SilentTracker())
    train_optimizer(replace(config, objective="weights", epochs=1), SilentTracker())


def test_a_diverged_training_raises(config):
    with pytest.raises(Diverged, match="train again with a lower lr"):
        train_optimizer(replace(config, lr=1e30, epochs=30), SilentTracker())
