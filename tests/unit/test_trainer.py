"""Phase 2 learns from recorded runs, judges on others, and refuses what cannot be."""

import json
from dataclasses import replace

import pytest
import torch

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
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.trajectories import Trajectory


class Notes(SilentTracker):
    """Remembers what it is told."""

    def __init__(self):
        self.values, self.told, self.data, self.stored = {}, [], {}, []

    def params(self, values):
        self.values.update(values)

    def metrics(self, values, step):
        self.told.append((step, dict(values)))

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


def test_it_learns_what_holds_for_runs_that_it_has_not_seen(config):
    notes = Notes()
    trained = train_optimizer(replace(config, epochs=16), notes)
    first, last = notes.told[0][1], notes.told[-1][1]
    assert last["val_log_loss_change"] < -0.005
    assert last["val_relative_error"] < 0.9
    assert last["val_objective"] < first["val_objective"]
    assert last["train_objective"] < first["train_objective"]
    assert trained.figures == last
    assert (len(trained.learned), len(trained.held_out)) == (3, 1)
    assert {*trained.learned, *trained.held_out} == {f"mlp/seed_{seed}" for seed in range(4)}
    assert not trained.optimizer.training
    trajectory = Trajectory.open(config.trajectory_dir / trained.held_out[0])
    assert trained.layouts == [trajectory.layout]
    assert trained.stride == trajectory.steps[1]


def test_it_tells_what_it_was_given_and_what_it_did(config):
    notes = Notes()
    trained = train_optimizer(config, notes)
    pairs, updates = 3 * 10, 4  # in batches of 8
    assert -(-pairs // 8) == updates
    assert [step for step, _ in notes.told] == [updates, 2 * updates]
    assert [values["epoch"] for _, values in notes.told] == [0, 1]
    names = {
        f"{part}_{name}" for part in ("train", "val") for name in ("objective", "relative_error", "log_loss_change")
    }
    assert set(notes.told[0][1]) == names | {"seconds", "epoch"}
    assert notes.values["optimizer.dim"] == 16
    assert notes.data == dict.fromkeys(trained.learned, "train") | dict.fromkeys(trained.held_out, "held-out")
    assert notes.stored == [("checkpoints/epoch_0001", ["PerceiverOptimizer_epoch_1.safetensors"])]
    assert trained.checkpoint == config.checkpoint_dir / "mlp" / "PerceiverOptimizer_epoch_1.safetensors"


def test_the_configuration_that_it_stores_gives_the_same_bytes_again(config, tmp_path):
    notes = Notes()
    trained = train_optimizer(config, notes)
    stored = {**json.loads(notes.values["config.json"]), "checkpoint_dir": str(tmp_path / "again")}
    again = train_optimizer(TrainOptimizerConfig.from_mapping(stored), SilentTracker())
    assert again.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    other = train_optimizer(replace(config, seed=1, checkpoint_name="other"), SilentTracker())
    assert other.checkpoint.read_bytes() != trained.checkpoint.read_bytes()


def test_its_last_checkpoint_holds_what_it_gives(config):
    trained = train_optimizer(config, SilentTracker())
    loaded = load_optimizer_file(trained.checkpoint)
    assert all(torch.equal(each, trained.optimizer.state_dict()[name]) for name, each in loaded.state_dict().items())


@pytest.mark.parametrize(("mode", "pairs"), [("sequential", 3 * 4), ("permutation", 3 * 10)])
def test_a_mode_decides_which_pairs_there_are(config, mode, pairs):
    notes = Notes()
    train_optimizer(replace(config, training_mode=mode, batch_size=1, epochs=1), notes)
    assert notes.told[0][0] == pairs


def test_an_epoch_may_be_a_draw_of_the_pairs(config):
    notes = Notes()
    train_optimizer(replace(config, pairs_per_epoch=10, batch_size=4), notes)
    assert [step for step, _ in notes.told] == [3, 6]


@pytest.mark.parametrize("objective", ["weights", "task", "mix"])
def test_any_objective_falls(config, objective):
    notes = Notes()
    train_optimizer(replace(config, objective=objective, epochs=5), notes)
    assert notes.told[-1][1]["val_objective"] < notes.told[0][1]["val_objective"]
    assert ("val_log_loss_change" in notes.told[0][1]) == (objective != "weights")


def test_networks_of_different_layouts_are_learned_from_together(config):
    notes = Notes()
    trained = train_optimizer(replace(config, run_name="mlp, wide", held_out=3, epochs=4), notes)
    assert len({layout.size for layout in trained.layouts}) == 2
    assert len(trained.learned) == 3
    assert {*trained.learned, *trained.held_out} == {
        *(f"mlp/seed_{seed}" for seed in range(4)), *(f"wide/seed_{seed}" for seed in range(2))
    }  # fmt: skip
    assert trained.checkpoint.parent == config.checkpoint_dir / "mlp+wide"
    assert notes.told[-1][1]["val_objective"] < notes.told[0][1]["val_objective"]


def test_a_run_name_given_twice_counts_once(config):
    """Else a run could be learned from and held out at the same time."""
    trained = train_optimizer(replace(config, run_name="mlp,mlp", epochs=1), SilentTracker())
    assert len(trained.learned) + len(trained.held_out) == 4


@pytest.mark.parametrize("name", ["Hold", "Line", "Average"])
def test_what_has_nothing_to_learn_is_judged_all_the_same(config, name):
    notes = Notes()
    trained = train_optimizer(replace(config, optimizer_model=name, optimizer_options={}, epochs=1), notes)
    figures = notes.told[0][1]
    assert type(trained.optimizer).__name__ == type(load_optimizer_file(trained.checkpoint)).__name__ == name
    if name == "Hold":
        assert figures["val_relative_error"] == pytest.approx(1)
        assert figures["val_log_loss_change"] == 0


def test_one_trajectory_is_learned_from_and_nothing_is_held_out(config, recorded):
    notes = Notes()
    one = replace(config, run_name="seed_0", trajectory_dir=recorded / "mlp", epochs=1)
    trained = train_optimizer(one, notes)
    assert (trained.learned, trained.held_out) == (["mlp/seed_0"], [])
    assert {name for name in notes.told[0][1] if name.startswith("val")} == set()


def test_resuming_goes_on_to_the_bytes_of_a_training_without_a_stop(config, tmp_path):
    every = replace(config, checkpoint_every=1)
    whole = train_optimizer(replace(every, epochs=3, checkpoint_dir=tmp_path / "whole"), SilentTracker())
    stopped = train_optimizer(replace(every, epochs=2), SilentTracker())
    notes = Notes()
    resumed = train_optimizer(replace(every, epochs=1), notes, resume=stopped.checkpoint)
    assert resumed.checkpoint.name == whole.checkpoint.name == "PerceiverOptimizer_epoch_2.safetensors"
    assert [values["epoch"] for _, values in notes.told] == [2]
    for path in whole.checkpoint.parent.glob("*.safetensors"):
        assert path.read_bytes() == (stopped.checkpoint.parent / path.name).read_bytes(), path.name


def test_resuming_may_go_on_elsewhere(config, tmp_path):
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
def test_resuming_with_other_settings_names_the_field_and_keeps_the_checkpoint(config, change, field):
    checkpoint = train_optimizer(replace(config, epochs=1), SilentTracker()).checkpoint
    before = checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match=field):
        train_optimizer(replace(config, overwrite=True, **change), SilentTracker(), resume=checkpoint)
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_of_phase_1_or_a_snapshot_is_not_resumed(config, recorded):
    with pytest.raises(CheckpointError, match="no checkpoint of phase 2"):
        train_optimizer(config, SilentTracker(), resume=recorded / "checkpoints/mlp/seed_0/checkpoint.safetensors")
    with pytest.raises(FileFormatError, match="is a snapshot file; expected a checkpoint"):
        train_optimizer(config, SilentTracker(), resume=recorded / "mlp/seed_0/step_00000000.safetensors")
    assert not config.checkpoint_dir.exists()


def test_checkpoints_of_that_name_are_kept_unless_told_otherwise(config):
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
def test_what_cannot_be_is_refused_before_anything_is_written(config, change, error, message):
    with pytest.raises(error, match=message):
        train_optimizer(replace(config, overwrite=True, **change), SilentTracker())
    assert not config.checkpoint_dir.exists()


@pytest.mark.parametrize("name", ["", "a,", "../x", "a, /b", " "])
def test_run_names_that_cannot_be_are_refused(name):
    with pytest.raises(RunNameError, match="cannot be a folder"):
        TrainOptimizerConfig(run_name=name)


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"lr": 0}, {"lr": "nan"}, {"batch_size": 0}, {"average": 1}, {"training_mode": "all"},
     {"objective": "mixed"}, {"held_out": -1}],
)  # fmt: skip
def test_values_that_break_a_rule_are_refused(change):
    with pytest.raises(InvalidConfig, match=next(iter(change))):
        TrainOptimizerConfig(**change)


def test_the_optimizer_is_shown_what_was_recorded(config, tmp_path):
    averages = TrainTargetConfig(
        run_name="averages", target_model="MLP", target_options={"widths": [4]}, epochs=3, averaging=0.9, runs=2,
        trajectory_dir=config.trajectory_dir, checkpoint_dir=tmp_path / "targets",
    )  # fmt: skip
    train_targets(averages, SilentTracker())
    trained = train_optimizer(replace(config, run_name="averages", held_out=1), SilentTracker())
    assert trained.optimizer.averaging == 0.9
    assert train_optimizer(replace(config, checkpoint_name="plain"), SilentTracker()).optimizer.averaging == 0.0
    both = replace(config, run_name=f"{config.run_name},averages", checkpoint_name="both")
    with pytest.raises(TrajectoryError, match=r"running average of decay 0\.9 .* to be shown ones of 0\."):
        train_optimizer(both, SilentTracker())


def test_a_run_with_one_snapshot_is_refused_by_name(config, recorded, tmp_path):
    lonely = tmp_path / "lonely" / "seed_0"
    lonely.mkdir(parents=True)
    first = "step_00000000.safetensors"
    (lonely / first).write_bytes((recorded / "mlp/seed_0" / first).read_bytes())
    with pytest.raises(TrajectoryError, match="seed_0 has one snapshot"):
        train_optimizer(replace(config, run_name="lonely", trajectory_dir=tmp_path), SilentTracker())


def test_damage_to_a_snapshot_stops_the_training_by_the_name_of_the_file(config, recorded, tmp_path):
    copy = tmp_path / "damaged" / "seed_0"
    copy.mkdir(parents=True)
    paths = sorted((recorded / "mlp/seed_0").glob("*.safetensors"))
    for path in paths:
        content = bytearray(path.read_bytes())
        content[-10] ^= path == paths[2]
        (copy / path.name).write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{paths[2].name} is damaged"):
        train_optimizer(replace(config, run_name="damaged", trajectory_dir=tmp_path), SilentTracker())


def test_data_that_is_missing_is_said_with_a_way_out(config, tmp_path):
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


def test_a_training_that_diverges_says_so(config):
    with pytest.raises(Diverged, match="train anew with a lower lr"):
        train_optimizer(replace(config, lr=1e30, epochs=30), SilentTracker())
