"""Snapshot pairs: their selection, their contents, and the split by run."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, TrajectoryError
from metaopt.trajectories import Recorder, Trajectory, WeightTrajectoryDataset, split_by_run
from metaopt.weights.layout import Layout


@pytest.fixture
def folder(tmp_path):
    """Two runs, of 4 and 6 snapshots and different layouts; each weight is the step."""
    for seed, count, width in ((0, 4, 2), (1, 6, 3)):
        model = nn.Linear(width, 2)
        recorder = Recorder(tmp_path / f"seed_{seed}", {"seed": seed}, Layout.of(model))
        for step in range(0, 10 * count, 10):
            recorder.layout.write(model, torch.full((recorder.layout.size,), float(step)))
            recorder.record(model, step, 0, {})
    return tmp_path


@pytest.mark.parametrize(("mode", "count"), [("sequential", 3 + 5), ("permutation", 6 + 15)])
def test_the_number_of_pairs(folder, mode, count):
    dataset = WeightTrajectoryDataset(folder, mode)
    assert len(dataset) == count == len(set(dataset.pairs))
    for pair, item in zip(dataset.pairs, dataset, strict=False):
        assert (item.t_start, item.t_end) == (10 * pair.start, 10 * pair.end)
        assert pair.start < pair.end
        assert (item.start == item.t_start).all()
        assert (item.end == item.t_end).all()
    assert all(pair.end == pair.start + 1 for pair in dataset.pairs) == (mode == "sequential")


def test_a_history_ends_with_the_start_and_is_padded_in_front(folder):
    dataset = WeightTrajectoryDataset(str(folder), "sequential", history=3)
    assert dataset[0].t_history.tolist() == [0, 0, 0]
    assert dataset[1].t_history.tolist() == [10, 0, 10]
    assert dataset[7].t_history.tolist() == [20, 30, 40]
    for item in (dataset[index] for index in range(len(dataset))):
        assert torch.equal(item.history[-1], item.start)
        assert torch.equal(item.history, item.t_history[:, None].expand_as(item.history))
        assert {tensor.dtype for tensor in item} == {torch.float32}


def test_histories_and_pairs_stay_within_a_segment(folder):
    model = nn.Linear(5, 5)
    for step in (40, 50):
        Recorder(folder / "seed_0", {"seed": 0}, Layout.of(model), segment=1).record(model, step, 0, {})
    dataset = WeightTrajectoryDataset(folder / "seed_0", "permutation")
    assert len(dataset) == 6 + 1
    assert dataset[6].t_history.tolist() == [40.0] * 5


def test_a_trajectory_with_one_snapshot_is_rejected_by_name(folder):
    model = nn.Linear(2, 2)
    Recorder(folder / "seed_2", {}, Layout.of(model)).record(model, 0, 0, {})
    with pytest.raises(TrajectoryError, match="seed_2 has one snapshot"):
        WeightTrajectoryDataset(folder)


def test_invalid_arguments_are_rejected(folder):
    with pytest.raises(InvalidConfig, match="did you mean sequential"):
        WeightTrajectoryDataset(folder, "sequentiel")
    with pytest.raises(InvalidConfig, match="history is 0"):
        WeightTrajectoryDataset(folder, history=0)


def test_the_split_is_by_run_and_reproducible(folder):
    trajectories = [Trajectory.open(folder / f"seed_{seed}") for seed in (0, 1, 0, 1, 0)]
    training, held_out = split_by_run(trajectories, 2, seed=3)
    assert (training, held_out) == split_by_run(trajectories, 2, seed=3)
    assert {*map(id, training), *map(id, held_out)} == set(map(id, trajectories))
    assert (len(training), len(held_out)) == (3, 2)
    assert len({tuple(map(id, split_by_run(trajectories, 2, seed=seed)[1])) for seed in range(20)}) > 3
    assert split_by_run(trajectories, 0)[1] == []


@pytest.mark.parametrize("held_out", [-1, 5, 6])
def test_a_training_run_must_be_left(folder, held_out):
    with pytest.raises(TrajectoryError, match=f"cannot hold out {held_out} of 5"):
        split_by_run([Trajectory.open(folder / "seed_0")] * 5, held_out)
