"""Generated weights load into the network and equal the predictions of the optimizer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from metaopt.core.errors import FileFormatError, InvalidConfig, StorageError, TrajectoryError
from metaopt.generative import get_optimizer_model
from metaopt.trajectories import Recorder, Trajectory
from metaopt.weights.files import read_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights
from metaopt.workflows.generate_weights import GenerateConfig, generate_file

RUN = {"task": "digits", "seed": 0}
STRIDE, COUNT = 10, 6


def network():
    """Two layers with BatchNorm between them; the first is frozen, the last of another dtype."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3).to(torch.float64))
    model[0].requires_grad_(False)
    return model


@pytest.fixture
def recorded(tmp_path):
    """A network whose weights change by a constant per snapshot, and its trajectory."""
    model = network()
    recorder = Recorder(tmp_path / "seed_0", RUN, Layout.of(model))
    start = recorder.layout.read(model)
    pace = torch.randn_like(start)
    for number in range(COUNT):
        recorder.layout.write(model, start + number * pace)
        model[1].running_mean.fill_(number)
        recorder.record(model, STRIDE * number, number, {})
    return model, Trajectory.open(tmp_path / "seed_0"), pace


@pytest.fixture
def config(recorded, tmp_path):
    return GenerateConfig(trajectory=recorded[1].folder, t_end=80.0, output=tmp_path / "out" / "next.safetensors")


def test_the_file_loads_into_the_network_with_frozen_weights_and_buffers(config, recorded):
    model, trajectory, pace = recorded
    generated = generate_file(config, get_optimizer_model("Line"))
    assert generated == (config.output, 50.0, 80.0)
    copy = network()
    load_model_weights(copy, generated.path)
    expected = trajectory.weights(-1) + 3 * pace
    torch.testing.assert_close(trajectory.layout.read(copy), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(copy[0].weight, model[0].weight)
    assert (copy[1].running_mean == COUNT - 1).all()
    tensors, facts = read_tensors(generated.path, "weights")
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }
    made_from = [{"kind": "trajectory", "name": trajectory.name, "digest": trajectory.digest, "run_id": None,
                  "generator": None}]  # fmt: skip
    assert facts == {"generated_by": "Line", "t_start": 50, "t_end": 80.0, "run": RUN, "made_from": made_from}


@pytest.mark.parametrize("t_start", [0, 10, 30])
def test_generation_starts_from_the_given_snapshot_and_reads_no_later_one(config, recorded, t_start):
    _, trajectory, pace = recorded
    generated = generate_file(replace(config, t_start=t_start), get_optimizer_model("Line"))
    copy = network()
    load_model_weights(copy, generated.path)
    strides = (80 - t_start) / STRIDE if t_start else 0  # a single snapshot has no slope
    expected = trajectory.weights(t_start // STRIDE) + strides * pace
    torch.testing.assert_close(trajectory.layout.read(copy), expected, rtol=1e-4, atol=1e-4)
    assert (copy[1].running_mean == t_start // STRIDE).all()
    assert generated.t_start == t_start


def test_hold_writes_the_exact_snapshot(config, recorded):
    _, trajectory, _ = recorded
    path = generate_file(config, get_optimizer_model("Hold")).path
    saved, tensors = read_tensors(trajectory.snapshots[-1].path, "snapshot")[0], read_tensors(path, "weights")[0]
    assert all(torch.equal(each, tensors[name]) for name, each in saved.items())


def test_the_file_has_the_prediction_from_the_history(config, recorded):
    _, trajectory, _ = recorded
    optimizer = get_optimizer_model("PerceiverOptimizer", history=3).eval()
    nn.init.normal_(optimizer.coefficients.weight, std=0.1)
    history = torch.stack([trajectory.weights(index) for index in (3, 4, 5)])[None]
    times = torch.tensor([[30.0, 40.0, 50.0]])
    expected = optimizer.predict(history, times, torch.tensor([80.0]), trajectory.layout)[0]
    tensors, _ = read_tensors(generate_file(config, optimizer).path, "weights")
    named = trajectory.layout.unflatten(expected)
    assert all(torch.equal(tensors[name], each.to(tensors[name].dtype)) for name, each in named.items())


def test_another_averaging_than_the_optimizers_is_logged(config, caplog):
    generate_file(config, get_optimizer_model("Line", averaging=0.9))
    assert "the trajectory has averaging 0, but Line was trained with averaging 0.9" in caplog.text


def test_a_network_that_grew_continues_from_its_last_segment(config, recorded, tmp_path):
    grown = nn.Linear(5, 2)
    for number in range(2):
        Recorder(tmp_path / "seed_0", RUN, Layout.of(grown), segment=1).record(grown, 60 + 10 * number, 7, {})
    (tmp_path / "seed_0" / "frozen.safetensors").unlink()
    copy = nn.Linear(5, 2)
    load_model_weights(copy, generate_file(config, get_optimizer_model("Line")).path)
    assert torch.equal(copy.weight, grown.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_start": 25}, r"no snapshot at step 25 .*the nearest are at \[10, 20, 30\]"),
        ({"t_start": 999}, r"the nearest are at \[30, 40, 50\]"),
        ({"t_end": 49.0}, "t_end is 49, before the snapshot at step 50; give 50 or more"),
        ({"t_start": 20, "t_end": 10.0}, "before the snapshot at step 20"),
    ],
)
def test_impossible_times_raise(config, change, message):
    with pytest.raises(InvalidConfig, match=message):
        generate_file(replace(config, **change), get_optimizer_model("Hold"))
    assert not config.output.parent.exists()


@pytest.mark.parametrize("change", [{"t_end": "nan"}, {"t_end": -1.0}, {"t_start": -1}, {"t_start": 1.5}])
def test_invalid_times_raise(change):
    with pytest.raises(InvalidConfig, match=next(iter(change))):
        GenerateConfig(**change)


def test_an_existing_file_is_kept_without_overwrite(config):
    generate_file(config, get_optimizer_model("Hold"))
    before = config.output.read_bytes()
    with pytest.raises(InvalidConfig, match="give --overwrite"):
        generate_file(config, get_optimizer_model("Line"))
    assert config.output.read_bytes() == before
    generate_file(replace(config, overwrite=True), get_optimizer_model("Line"))
    assert config.output.read_bytes() != before


def test_weights_that_are_not_finite_are_not_written(config):
    with pytest.raises(InvalidConfig, match="are not finite; give a t_end nearer to the snapshot"):
        generate_file(replace(config, t_end=1e39), get_optimizer_model("Line"))
    assert not config.output.exists()


def test_a_path_that_cannot_be_written_and_a_missing_or_damaged_trajectory_raise(config, recorded, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not write"):
        generate_file(replace(config, output=tmp_path / "file" / "next"), get_optimizer_model("Hold"))
    with pytest.raises(TrajectoryError, match="no such folder"):
        generate_file(replace(config, trajectory=tmp_path / "none"), get_optimizer_model("Hold"))
    path = recorded[1].snapshots[-1].path
    path.write_bytes(path.read_bytes()[:-3] + b"bad")
    with pytest.raises(FileFormatError, match="is damaged"):
        generate_file(config, get_optimizer_model("Hold"))


def test_the_default_time_is_that_of_the_next_snapshot(config):
    generated = generate_file(replace(config, t_end=None), get_optimizer_model("Line"))
    assert generated.t_end == 2 * generated.t_start - Trajectory.open(config.trajectory).steps[-2]
