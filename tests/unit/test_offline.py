"""Batches of pairs: every pair comes once, with pairs of the same problem."""

import pytest
import torch
from torch import nn

from metaopt.metatraining.offline import pair_batches
from metaopt.metatraining.problem import problem_key
from metaopt.trajectories import Recorder, WeightTrajectoryDataset
from metaopt.weights.layout import Layout


@pytest.fixture
def dataset(tmp_path):
    """Three runs of 5 snapshots: two of one layout, one of another; weights encode run and step."""
    for seed, width in ((0, 2), (1, 3), (2, 2)):
        model = nn.Linear(width, 2)
        recorder = Recorder(tmp_path / f"seed_{seed}", {"task": "x", "seed": seed}, Layout.of(model))
        for step in range(0, 50, 10):
            recorder.layout.write(model, torch.full((recorder.layout.size,), 1000.0 * seed + step))
            recorder.record(model, step, 0, {})
    return WeightTrajectoryDataset(tmp_path, "permutation", history=3)


def read(dataset, batch):
    """(run, first step, last step) of each pair of a batch, from the weights alone."""
    pairs = dataset.batch(batch.indices)
    ends = zip(pairs.start[:, 0].tolist(), pairs.end[:, 0].tolist(), strict=True)
    return [(int(start) // 1000, int(start) % 1000, int(end) % 1000) for start, end in ends]


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_every_pair_comes_once_with_pairs_of_its_problem(dataset, size):
    order = torch.randperm(len(dataset)).tolist()
    batches = list(pair_batches(dataset, order, size))
    seen = [pair for batch in batches for pair in read(dataset, batch)]
    assert sorted(seen) == sorted((which, 10 * start, 10 * end) for which, start, end in dataset.pairs)
    for batch in batches:
        of_batch = [dataset.trajectories[which] for which, _, _ in read(dataset, batch)]
        assert len({trajectory.layout for trajectory in of_batch}) == 1
        assert {problem_key(trajectory) for trajectory in of_batch} == {batch.problem}
        assert 0 < len(of_batch) <= size


def test_runs_of_one_problem_share_batches_in_the_given_order(dataset):
    order = [index for index in range(len(dataset)) if dataset.pairs[index].trajectory != 1]
    order = order[::2] + order[1::2]
    batches = list(pair_batches(dataset, order, 6))
    assert [len(read(dataset, batch)) for batch in batches] == [6, 6, 6, 2]
    seen = [pair for batch in batches for pair in read(dataset, batch)]
    assert seen == [(which, 10 * start, 10 * end) for which, start, end in (dataset.pairs[index] for index in order)]


def test_incomplete_batches_come_last(dataset):
    sizes = [len(read(dataset, batch)) for batch in pair_batches(dataset, range(len(dataset)), 8)]
    assert sizes == [8, 8, 8, 2, 4]


def test_an_empty_order_gives_no_batches(dataset):
    assert list(pair_batches(dataset, [], 4)) == []
