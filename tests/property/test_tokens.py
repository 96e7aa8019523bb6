"""Tokens represent the weights that they were cut from, for any layout, width and slices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.weights.layout import Layout, WeightTensor
from metaopt.weights.scales import tensor_scales
from metaopt.weights.snapshots import Snapshots
from metaopt.weights.tokens import POSITION_FEATURES, TokenGrid, token_grid

QUICK = settings(max_examples=80, deadline=None)


def layout_of(shapes):
    return Layout(tuple(WeightTensor(f"w{i}", tuple(shape), "float32") for i, shape in enumerate(shapes)))


layouts = st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=6).map(layout_of)
grids = st.builds(TokenGrid, layouts, st.integers(1, 40))
limits = st.integers(1, 200)


def weights_of(layout, *batch):
    """Weights without zeros, so that padding is visible."""
    return torch.rand(*batch, layout.size, generator=torch.Generator().manual_seed(layout.size)) + 1


@QUICK
@given(grid=grids, limit=limits)
def test_slices_cover_all_tokens_and_join_to_the_weights(grid, limit):
    flat = weights_of(grid.layout, 2)
    slices = list(grid.slices(limit))
    assert [number for first, last in slices for number in range(first, last)] == list(range(grid.count))
    assert all(0 < last - first <= limit for first, last in slices)
    pieces = [grid.cut(flat, first, last) for first, last in slices]
    assert torch.equal(torch.cat(pieces, 1), grid.cut(flat, 0, grid.count))
    joined = [grid.join(piece, *ends) for piece, ends in zip(pieces, slices, strict=True)]
    assert torch.equal(torch.cat(joined, -1), flat)
    for piece, (first, last) in zip(joined, slices, strict=True):
        begin, end = grid.span(first, last)
        assert torch.equal(piece, flat[:, begin:end])


@QUICK
@given(grid=grids)
def test_no_token_crosses_a_tensor_and_the_rest_is_zero(grid):
    expected = []
    for piece in grid.layout.split(weights_of(grid.layout)):
        expected += [torch.nn.functional.pad(part, (0, grid.width - len(part))) for part in piece.split(grid.width)]
    assert torch.equal(grid.cut(weights_of(grid.layout), 0, grid.count), torch.stack(expected))
    assert grid.count == len(expected) == sum(grid.counts)


@QUICK
@given(grid=grids, data=st.data())
def test_gathered_tokens_equal_cut_tokens(grid, data):
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, grid.count - 1), min_size=1, max_size=9)))
    flat = weights_of(grid.layout, 3, 2)
    assert torch.equal(grid.gather(flat, numbers), grid.cut(flat, 0, grid.count)[..., numbers, :])


@QUICK
@given(grid=grids, limit=limits)
def test_evenly_spaced_tokens_are_sorted_limited_and_of_every_tensor(grid, limit):
    sample = grid.evenly_spaced(limit)
    assert torch.equal(sample, sample.unique())
    assert 0 < len(sample) <= limit
    assert sample[0] >= 0
    assert sample[-1] < grid.count
    if limit >= len(grid.counts):
        assert set(grid.tensor_index(sample).tolist()) == set(range(len(grid.counts)))
    if limit >= grid.count:
        assert len(sample) == grid.count


@pytest.mark.parametrize("weights", [50_000, 4_000_000, 40_000_000])
def test_evenly_spaced_tokens_include_both_ends_without_large_gaps(weights):
    grid = TokenGrid(layout_of([(10,), (weights,), (10,)]), 1)
    sample = grid.evenly_spaced(1000)
    assert (sample[0], sample[-1]) == (0, grid.count - 1)
    assert sample.diff().max() < 1.1 * grid.count / 990


@QUICK
@given(grid=grids)
def test_position_features_identify_each_token(grid):
    numbers = torch.arange(grid.count)
    owner, features = grid.tensor_index(numbers), grid.position_features(numbers)
    assert owner.tolist() == [tensor for tensor, count in enumerate(grid.counts) for _ in range(count)]
    assert features.shape == (grid.count, POSITION_FEATURES)
    assert features.isfinite().all()
    assert (features >= 0).all()
    assert (features <= 1).all()
    assert len(features.unique(dim=0)) == grid.count
    backwards = numbers.flip(0)
    assert torch.equal(grid.position_features(backwards), features.flip(0))


def test_the_grid_of_a_layout_is_cached():
    layout = layout_of([(3, 4)])
    assert token_grid(layout, 5) is token_grid(layout_of([(3, 4)]), 5)
    assert token_grid(layout, 6).count == 2


def reference_scales(layout, snapshots):
    """Row by row, tensor by tensor: the last snapshot's size, and the size of those differences that there are."""
    sizes, movements = [], []
    for history in snapshots:
        of_tensors = [list(layout.split(snapshot)) for snapshot in history]
        sizes.append([])
        movements.append([])
        for number in range(len(layout.tensors)):
            *older, last = (tensors[number] for tensors in of_tensors)
            energies = [(last - each).square().mean() for each in older if not torch.equal(last, each)]
            sizes[-1].append(last.square().mean().sqrt())
            movements[-1].append(torch.stack(energies).mean().sqrt() if energies else torch.tensor(0.0))
    return torch.tensor(sizes), torch.tensor(movements)


@QUICK
@given(layout=layouts, snapshots=st.integers(1, 4), absent=st.integers(0, 3))
def test_scales_equal_the_reference_and_ignore_absent_snapshots(layout, snapshots, absent):
    history = weights_of(layout, 2, snapshots)
    sizes, movements = tensor_scales(layout, Snapshots.of(history))
    expected = reference_scales(layout, history)
    torch.testing.assert_close((sizes, movements), expected)
    filled = torch.cat([history[:, -1:].expand(-1, absent, -1), history], 1)
    torch.testing.assert_close(tensor_scales(layout, Snapshots.of(filled)), (sizes, movements))


@QUICK
@given(layout=layouts, factor=st.sampled_from([0.01, 3.0, 1000.0]))
def test_scales_are_absolutely_homogeneous(layout, factor):
    history = weights_of(layout, 2, 3)
    expected = tuple(factor * scale for scale in tensor_scales(layout, Snapshots.of(history)))
    torch.testing.assert_close(tensor_scales(layout, Snapshots.of(-factor * history)), expected, rtol=1e-5, atol=1e-5)


def test_scales_of_a_large_tensor_are_accurate():
    layout, random = layout_of([(300_000,)]), torch.Generator().manual_seed(0)
    history = torch.randn(1, 2, layout.size, generator=random)
    for scale, expected in zip(tensor_scales(layout, Snapshots.of(history)), (1.0, 2**0.5), strict=True):
        assert scale.item() == pytest.approx(expected, rel=0.02)
