"""Trajectories are recorded by name, read as flat vectors, and checked for consistency."""

import json
import os
import shutil

import pytest
import torch
from torch import nn

from metaopt.core.errors import Diverged, FileFormatError, LayoutMismatch, TrajectoryError
from metaopt.trajectories import (
    TASK_FILE,
    Recorder,
    Trajectory,
    WeightTrajectoryDataset,
    find_trajectories,
    write_task,
)
from metaopt.trajectories.recording_file import RUN_FILE, read_run_id
from metaopt.trajectories.task_file import read_task
from metaopt.weights.files import files_of, read_tensors, write_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def record(folder, steps=(0, 5, 10), run=None, model=None, segment=0):
    model = model or network()
    recorder = Recorder(folder, run or {"seed": 0}, Layout.of(model), segment)
    for step in steps:
        recorder.record(model, step, epoch=step // 5, losses={"val_loss": 1.0 / (step + 1)})
    return model


def test_recorded_snapshots_are_read(tmp_path):
    model = record(tmp_path)
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.steps == [0, 5, 10]
    assert len(trajectory) == 3
    assert trajectory.layout == Layout.of(model)
    assert trajectory.run == {"seed": 0}
    assert trajectory.losses(1) == {"val_loss": 1 / 6}
    assert torch.equal(trajectory.weights(-1), Layout.of(model).read(model))
    assert set(trajectory.buffers(0)) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert trajectory.frozen() == {}


def test_a_snapshot_loads_into_its_network(tmp_path):
    model, other = record(tmp_path), network()
    load_model_weights(other, tmp_path / "step_00000005.safetensors")
    assert torch.equal(other[0].weight, model[0].weight)


def test_a_digest_depends_on_every_snapshot(tmp_path):
    model = record(tmp_path)
    before = Trajectory.open(tmp_path).digest
    assert Trajectory.open(tmp_path).digest == before
    record(tmp_path, steps=[15], model=model)
    assert Trajectory.open(tmp_path).digest != before


def test_frozen_weights_are_stored_once(tmp_path):
    model = network()
    model[0].requires_grad_(False)
    record(tmp_path, model=model)
    trajectory = Trajectory.open(tmp_path)
    assert set(trajectory.frozen()) == {"0.weight", "0.bias"}
    assert trajectory.layout.size == 6
    assert not set(read_tensors(tmp_path / "step_00000000.safetensors", "snapshot")[0]) & set(trajectory.frozen())


def divide(path, kind) -> None:
    """Rewrite a file in shards."""
    tensors, facts = read_tensors(path, kind)
    write_tensors(path, tensors, kind, facts, shard_size=30)


def test_a_trajectory_in_shards_is_the_same_trajectory(tmp_path):
    model = network()
    model[0].requires_grad_(False)
    record(tmp_path, model=model)
    before = Trajectory.open(tmp_path)
    weights, frozen = before.weights(1).clone(), before.frozen_digest
    for path in before.files():
        divide(path, "frozen" if path.stem == "frozen" else "snapshot")
    (after,) = find_trajectories(tmp_path)
    assert after.steps == before.steps
    assert torch.equal(after.weights(1), weights)
    assert after.frozen_digest == frozen
    assert len(after.files()) > 2 * len(after)
    assert {*after.files()} == {*tmp_path.iterdir()}


def test_the_files_of_a_trajectory_include_shards_and_facts_of_the_task(tmp_path):
    model = network()
    model[0].requires_grad_(False)
    record(tmp_path, model=model)
    (tmp_path / TASK_FILE).write_text("{}", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    divide(tmp_path / "step_00000005.safetensors", "snapshot")
    names = [path.name for path in Trajectory.open(tmp_path).files()]
    shards = [path.name for path in files_of(tmp_path / "step_00000005.safetensors")[1:]]
    assert names == [
        "step_00000000.safetensors",
        "step_00000005.safetensors",
        *shards,
        "step_00000010.safetensors",
        "frozen.safetensors",
        "task.json",
    ]


def test_facts_of_the_task_are_read(tmp_path):
    record(tmp_path)
    assert Trajectory.open(tmp_path).task is None
    (tmp_path / TASK_FILE).write_text('{"kind": "ä", "baseline_loss": 0.5}', encoding="utf-8")
    assert Trajectory.open(tmp_path).task == {"kind": "ä", "baseline_loss": 0.5}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"kind": ', b"\xff", b"[" * 100_000])
def test_damaged_facts_of_the_task_are_rejected(tmp_path, content):
    record(tmp_path)
    (tmp_path / TASK_FILE).write_bytes(content)
    with pytest.raises(FileFormatError, match=r"task\.json"):
        _ = Trajectory.open(tmp_path).task


FACTS = {"kind": "ä", "baseline_loss": 2.5e-07, "loss_change_std": None, "metrics": ["accuracy"], "notes": []}


def test_every_flipped_bit_in_the_facts_of_the_task_is_noticed(tmp_path):
    record(tmp_path)
    write_task(tmp_path, FACTS)
    assert Trajectory.open(tmp_path).task == FACTS
    data = (tmp_path / TASK_FILE).read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / TASK_FILE).write_bytes(changed)
        with pytest.raises(FileFormatError, match=r"task\.json"):
            read_task(tmp_path / TASK_FILE)


@pytest.mark.parametrize("change", [{"target_loss": 9.0}, {"baseline_loss": 2.5}, {"notes": None}])
def test_changed_facts_of_the_task_are_rejected(tmp_path, change):
    write_task(tmp_path, FACTS)
    facts = json.loads((tmp_path / TASK_FILE).read_text())
    (tmp_path / TASK_FILE).write_text(json.dumps(facts | change, indent=2) + "\n")
    with pytest.raises(FileFormatError, match="do not match its sha256"):
        read_task(tmp_path / TASK_FILE)


def test_a_trajectory_may_begin_at_a_later_step(tmp_path):
    model = record(tmp_path, steps=[40, 50])
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.steps == [40, 50]
    assert torch.equal(trajectory.weights(0), Layout.of(model).read(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_recorded(tmp_path, value):
    model = record(tmp_path)
    with torch.no_grad():
        model[0].bias[1] = value
    with pytest.raises(Diverged, match=r"0\.bias is no longer finite at step 15"):
        record(tmp_path, steps=[15], model=model)
    assert Trajectory.open(tmp_path).steps == [0, 5, 10]


def test_a_network_of_another_layout_is_rejected(tmp_path):
    with pytest.raises(LayoutMismatch):
        Recorder(tmp_path, {}, Layout.of(nn.Linear(2, 2))).record(nn.Linear(2, 3), 0, 0, {})


def test_a_growing_network_has_segments(tmp_path):
    record(tmp_path, steps=[0, 1])
    record(tmp_path, steps=[2], model=nn.Linear(2, 5), segment=1)
    trajectory = Trajectory.open(tmp_path)
    assert [segment[1:3] for segment in trajectory.segments] == [(0, 2), (2, 3)]
    assert trajectory.weights(2).shape == (15,)
    with pytest.raises(TrajectoryError, match="2 segments"):
        _ = trajectory.layout


def test_differing_layouts_in_one_segment_are_rejected(tmp_path):
    record(tmp_path, steps=[0, 1])
    record(tmp_path, steps=[2], model=nn.Linear(2, 5))
    with pytest.raises(TrajectoryError, match="different layouts"):
        Trajectory.open(tmp_path)


def test_two_runs_in_one_folder_are_rejected(tmp_path):
    record(tmp_path, steps=[0, 1])
    record(tmp_path, steps=[2], run={"seed": 1})
    with pytest.raises(TrajectoryError, match="seed is 1 and 0"):
        Trajectory.open(tmp_path)


def test_a_renamed_snapshot_is_rejected(tmp_path):
    record(tmp_path)
    (tmp_path / "step_00000005.safetensors").rename(tmp_path / "step_00000007.safetensors")
    with pytest.raises(TrajectoryError, match="is the snapshot of step 5"):
        Trajectory.open(tmp_path)


def test_damage_is_detected_on_the_first_read(tmp_path):
    record(tmp_path)
    path = tmp_path / "step_00000005.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 4
    path.write_bytes(damaged)
    trajectory = Trajectory.open(tmp_path)
    for _ in range(2):
        with pytest.raises(FileFormatError, match="sha256"):
            trajectory.weights(1)
    trajectory.weights(0)


def test_tensors_that_do_not_match_the_layout_are_rejected(tmp_path):
    record(tmp_path, steps=[0])
    path = tmp_path / "step_00000000.safetensors"
    tensors, facts = read_tensors(path, "snapshot")
    write_tensors(path, {**tensors, "0.bias": torch.zeros(4)}, "snapshot", facts)
    with pytest.raises(FileFormatError, match=r"0\.bias has shape \(4,\); expected \(3,\)"):
        Trajectory.open(tmp_path).weights(0)


@pytest.mark.parametrize("missing", ["layout", "step", "losses"])
def test_a_snapshot_without_a_fact_is_rejected(tmp_path, missing):
    record(tmp_path, steps=[0])
    path = tmp_path / "step_00000000.safetensors"
    tensors, facts = read_tensors(path, "snapshot")
    facts.pop(missing)
    write_tensors(path, tensors, "snapshot", facts)
    with pytest.raises(FileFormatError):
        Trajectory.open(tmp_path)


def test_an_empty_or_missing_folder_is_rejected(tmp_path):
    with pytest.raises(TrajectoryError, match="no snapshot"):
        Trajectory.open(tmp_path)
    with pytest.raises(TrajectoryError, match="no such folder"):
        Trajectory.open(tmp_path / "none")


def test_trajectories_are_found_in_subfolders_in_natural_order(tmp_path):
    for seed in (10, 2, 0):
        record(tmp_path / "cnn" / f"seed_{seed}", steps=[0])
    shutil.copytree(tmp_path / "cnn", tmp_path / "mlp")
    assert [found.name for found in find_trajectories(tmp_path / "cnn")] == ["cnn/seed_0", "cnn/seed_2", "cnn/seed_10"]
    assert len(find_trajectories(str(tmp_path))) == 6
    assert len(find_trajectories(tmp_path / "cnn" / "seed_2")) == 1


def test_an_unfinished_download_is_not_found(tmp_path):
    model = record(tmp_path / "cnn" / "seed_1")
    record(tmp_path / "cnn" / ".seed_0-x1y2" / "complete", model=model)
    record(tmp_path / ".hidden" / "seed_0", model=model)
    assert [found.name for found in find_trajectories(tmp_path)] == ["cnn/seed_1"]
    assert len(WeightTrajectoryDataset(tmp_path)) == 2
    with pytest.raises(TrajectoryError, match=r"no trajectory 'none'.*known are cnn\)?$"):
        find_trajectories(tmp_path / "none")


def test_trajectories_in_a_hidden_parent_are_found(tmp_path):
    record(tmp_path / ".cache" / "cnn" / "seed_0")
    assert len(find_trajectories(tmp_path / ".cache" / "cnn")) == 1


def test_a_missing_snapshot_is_noticed(tmp_path):
    record(tmp_path)
    (tmp_path / "step_00000005.safetensors").unlink()
    with pytest.raises(TrajectoryError, match=r"the snapshot of step 5 is missing.*before step_00000010"):
        Trajectory.open(tmp_path)


def test_a_missing_last_snapshot_of_a_finished_recording_is_noticed(tmp_path):
    record(tmp_path)
    write_task(tmp_path, FACTS, last_step=10)
    assert Trajectory.open(tmp_path).task == {**FACTS, "last_step": 10}
    (tmp_path / "step_00000010.safetensors").unlink()
    with pytest.raises(TrajectoryError, match=r"snapshots after step 5 are missing.*its recording ended at step 10"):
        Trajectory.open(tmp_path)


def test_a_finished_recording_that_is_resumed_may_have_later_snapshots(tmp_path):
    model = record(tmp_path)
    write_task(tmp_path, FACTS, last_step=10)
    record(tmp_path, steps=[15, 20], model=model)
    (tmp_path / "step_00000000.safetensors").unlink()
    assert Trajectory.open(tmp_path).steps == [5, 10, 15, 20]


@pytest.mark.parametrize("last", [-1, 1.5, True, "10", None])
def test_a_last_step_that_is_no_step_is_rejected(tmp_path, last):
    record(tmp_path)
    write_task(tmp_path, {**FACTS, "last_step": last})
    with pytest.raises(FileFormatError, match=r"task\.json.*its last_step is .*; expected a whole number"):
        Trajectory.open(tmp_path)


def test_removed_first_snapshots_and_inserted_ones_are_valid(tmp_path):
    model = record(tmp_path, steps=[0, 5, 20])
    record(tmp_path, steps=[10], model=model)
    record(tmp_path, steps=[15, 25], model=model)
    (tmp_path / "step_00000000.safetensors").unlink()
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.steps == [5, 10, 15, 20, 25]
    assert [snapshot.previous for snapshot in trajectory.snapshots] == [0, 5, 10, 5, 15]


def test_a_repeated_recording_of_a_step_writes_the_same_bytes(tmp_path):
    model = record(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for steps in ([10], [5, 10], [0, 5, 10]):
        record(tmp_path, steps=steps, model=model)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_message_names_similar_folders(tmp_path):
    record(tmp_path / "cnn-small" / "seed_0", steps=[0])
    with pytest.raises(TrajectoryError, match=r"no trajectory 'cnn-smal'.*did you mean cnn-small"):
        find_trajectories(tmp_path / "cnn-smal")
    with pytest.raises(TrajectoryError, match="record one with train-target"):
        find_trajectories(tmp_path / "nowhere" / "cnn")


def test_a_pipe_in_place_of_the_file_with_the_run_id_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / RUN_FILE)
    assert read_run_id(tmp_path) is None
