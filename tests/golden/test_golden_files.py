"""Files of all released schemas load."""

from pathlib import Path

import torch
from torch import nn

from metaopt.trajectories import Recorder, Trajectory
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.trajectories.ledger_entry import TrainingFacts, check_entry, sidecar_path
from metaopt.trajectories.origin import Generator, Origin, Parent
from metaopt.trajectories.sealed_json import read_sealed
from metaopt.weights.files import files_of, read_facts, read_tensors, write_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights

SNAPSHOT = Path(__file__).with_name("snapshot_v1.safetensors")
SHARDED = Path(__file__).with_name("sharded_v1.safetensors")

CHECKPOINT = Path(__file__).with_name("checkpoint_v1.safetensors")
FACTS = TrainingFacts(
    training="optimizer",
    run_name="digits",
    run_id="0123456789abcdef0123456789abcdef",
    step=4200,
    metrics={"train_objective": 0.25, "val_objective": 0.5},
    origin=Origin(
        Generator("train-optimizer", "0.2.0", "a" * 32),
        (
            Parent("trajectory", "digits/seed_0", "b" * 32, "c" * 32),
            Parent("data set", "digits", "d" * 32, generator=Generator("task digits", "0.2.0", "e" * 32)),
        ),
    ),
)
"""What the sidecar of the golden checkpoint states."""


def golden_network() -> nn.Module:
    """Weights 0, 1, 2, … and running statistics of its own."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    layout = Layout.of(model)
    layout.write(model, torch.arange(float(layout.size)))
    model[1].running_mean.fill_(0.5)
    return model


def record_golden(folder: Path) -> Path:
    model = golden_network()
    recorder = Recorder(folder, {"task": "none", "lr": 1e-05, "seed": 3}, Layout.of(model))
    return recorder.record(model, 20, 2, {"train_loss": 0.25, "val_loss": 0.5})


def test_a_snapshot_of_schema_1_loads(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_model_weights(model, SNAPSHOT)
    for name, tensor in golden_network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    facts = read_facts(SNAPSHOT, "snapshot")
    assert (facts["step"], facts["epoch"], facts["losses"]) == (20, 2, {"train_loss": 0.25, "val_loss": 0.5})
    (tmp_path / "step_00000020.safetensors").write_bytes(SNAPSHOT.read_bytes())
    assert torch.equal(Trajectory.open(tmp_path).weights(0), torch.arange(15.0))


def test_recording_writes_schema_1(tmp_path):
    path = record_golden(tmp_path)
    ours, theirs = read_tensors(path, "snapshot"), read_tensors(SNAPSHOT, "snapshot")
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])


def test_a_sharded_file_of_schema_1_loads():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_model_weights(model, SHARDED)
    for name, tensor in golden_network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert len(files_of(SHARDED)) == 1 + 2


def test_shards_are_divided_as_in_schema_1(tmp_path):
    path = tmp_path / SHARDED.name
    write_tensors(path, golden_network().state_dict(), "weights", {"model": "Sequential"}, shard_size=50)
    assert [each.name for each in files_of(path)] == [each.name for each in files_of(SHARDED)]
    for ours, theirs in zip(files_of(path), files_of(SHARDED), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_sidecar_of_schema_1_loads():
    entry = check_entry(CHECKPOINT)
    assert entry.facts == FACTS
    assert entry.created == "2026-11-29T05:00:00.000000+00:00"
    assert entry.versions == {"metaopt": "0.2.0", "torch": "2.15.0", "schema": "1"}


def test_checkpoints_write_sidecars_of_schema_1(tmp_path):
    path = tmp_path / CHECKPOINT.name
    save_checkpoint(path, {"model": {"w": torch.arange(3.0)}, "step": 4200}, {"settings": {"lr": 0.1}}, FACTS)
    assert path.read_bytes() == CHECKPOINT.read_bytes()
    ours, theirs = (read_sealed(sidecar_path(each)) for each in (path, CHECKPOINT))
    its_own = {"created": None, "versions": None}
    assert {**ours, **its_own} == {**theirs, **its_own}
