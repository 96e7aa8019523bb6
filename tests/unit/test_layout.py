"""Layouts contain each trainable weight once, and mismatches are rejected."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import LayoutMismatch
from metaopt.weights.averaging import ExponentialMovingAverage
from metaopt.weights.layout import Layout


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


def test_frozen_weights_and_buffers_are_not_in_the_layout():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    layout = Layout.of(model)
    assert [tensor.name for tensor in layout.tensors] == ["0.weight", "1.weight", "1.bias"]
    assert (layout.size, layout.offsets) == (12, (0, 6, 9))


def test_a_tensor_with_two_names_counts_once():
    assert Layout.of(Tied()).size == 9


def test_written_weights_are_read():
    model = nn.Linear(4, 2)
    flat = torch.randn(10)
    Layout.of(model).write(model, flat)
    assert torch.equal(Layout.of(model).read(model), flat)
    assert torch.equal(model.bias, flat[8:])


def test_a_batch_is_unflattened_row_by_row():
    layout = Layout.of(nn.Linear(4, 2))
    flat = torch.randn(3, 10)
    assert torch.equal(layout.unflatten(flat)["weight"], flat[:, :8].reshape(3, 2, 4))


def test_writing_to_another_network_changes_nothing():
    model = nn.Linear(2, 4)
    before = model.weight.detach().clone()
    with pytest.raises(LayoutMismatch, match="first difference"):
        Layout.of(nn.Linear(4, 2)).write(model, torch.zeros(10))
    assert torch.equal(model.weight, before)


def test_a_vector_of_another_length_is_rejected():
    with pytest.raises(LayoutMismatch, match="got 9 weights; the layout has 10"):
        Layout.of(nn.Linear(4, 2)).unflatten(torch.zeros(9))


def test_a_network_without_trainable_weights_is_rejected():
    with pytest.raises(LayoutMismatch, match="requires_grad"):
        Layout.of(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        7,
        [["w", [2]]],
        [["w", [0], "float32"]],
        [["w", [-1], "float32"]],
        [["w", [2], "int64"]],
        [["w", [2], "Tensor"]],
        [["w", [2], "float32"], ["w", [2], "float32"]],
    ],
)
def test_invalid_values_are_rejected(values):
    with pytest.raises(LayoutMismatch, match="not a layout"):
        Layout.from_list(values)


def test_weights_are_read_and_averaged_on_their_device(fake_cuda):
    with torch.device(fake_cuda):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, dtype=torch.bfloat16))
    layout, average = Layout.of(model), ExponentialMovingAverage(0.9)
    average.update(list(model.parameters()))
    average.update(list(model.parameters()))
    flat = layout.join(average.tensors)
    assert flat.device == layout.read(model).device == model[0].weight.device
    layout.write(model, flat)
