"""Copies that share the weights, on which a trainer's guard runs."""

import threading

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metaopt.core.errors import InvalidConfig
from metaopt.nowcast.integrations.guard import BatchesGuard, first_batches, split_rows
from metaopt.nowcast.integrations.isolation import copy_of, copy_sharing_weights


class Network(nn.Module):
    """Has what user code keeps in a module."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.utils.spectral_norm(nn.Linear(4, 3)), nn.BatchNorm1d(3)
        self.losses, self.data, self.calls = [], {"loaders": [DataLoader(TensorDataset(torch.zeros(3, 4)))]}, 0
        self.registered = self.layer.register_forward_hook(lambda *_: self.losses.append("hook"))

    def forward(self, inputs):
        self.calls += 1
        outputs = self.norm(self.layer(inputs))
        self.losses.append(outputs.sum())  # with a gradient history
        return outputs


def test_weights_are_shared_and_all_else_is_copied():
    model = Network()
    model(torch.ones(2, 4))
    copied = copy_sharing_weights(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert all(map(torch.Tensor.is_set_to, copied.parameters(), model.parameters()))
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    assert copied.norm.weight.eq(3).all()
    copied(torch.randn(5, 4))
    assert (model.calls, len(model.losses)) == (1, 2)
    assert (copied.calls, len(copied.losses)) == (2, 3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert copied.data["loaders"][0] is model.data["loaders"][0]


def test_hooks_of_pytorch_remain_and_others_are_removed():
    copied = copy_sharing_weights(Network())
    assert len(copied.layer._forward_pre_hooks) == 1  # of spectral_norm
    assert not copied.layer._forward_hooks


def test_what_cannot_be_copied_is_told_with_what_to_do():
    model = Network()
    model.lock = threading.Lock()
    with pytest.raises(InvalidConfig, match=r"a copy of Network, which cannot be made: .*Give guard="):
        copy_sharing_weights(model)


def test_batches_are_read_once_and_copied_for_each_call():
    opened, batches = [], [{"inputs": torch.ones(2, 4)}, {"inputs": torch.zeros(2, 4)}]

    def loss(model, batch):
        assert not model.training
        return model(batch.pop("inputs").add_(1)).mean()

    model = Network()
    guard = BatchesGuard(lambda: model, lambda: opened.append(1) or batches, loss, 4)
    assert torch.equal(guard(), guard())
    assert opened == [1]
    assert batches[0]["inputs"].eq(1).all()


def test_each_nowcast_uses_other_batches():
    model, seen = Network(), []
    batches = [torch.full((1,), float(number)) for number in range(32)]
    guard = BatchesGuard(lambda: model, lambda: batches, lambda model, batch: seen.append(float(batch)) or 0.0, 4)
    for step in (40, 80, 40):
        guard.start(step)
        guard()
    assert seen[:4] == seen[8:]
    assert set(seen[:4]) != set(seen[4:8])
    guard.start(40, guard.smallest_share)
    assert len(guard()) == 2


@pytest.mark.parametrize(("size", "expected"), [(19, 0), (20, 2), (1000, 64), (10_000, 200), (10**6, 2048)])
def test_a_small_part_of_the_training_data_guards(size, expected):
    rows = split_rows(size)
    if not expected:
        assert rows is None
        return
    kept, held_out = rows
    assert len(held_out) == expected
    assert sorted([*kept, *held_out]) == list(range(size))
    assert rows == split_rows(size)


def test_compiled_networks_are_not_compiled_again():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.compile(nn.Linear(4, 3), backend=backend)

        def forward(self, inputs):
            return self.inner(inputs)

    model = Outer()
    model(torch.ones(2, 4))
    guard = BatchesGuard(lambda: model, lambda: [torch.ones(2, 4)], lambda copied, batch: copied(batch).mean(), 1)
    for _ in range(2):
        guard()
        model(torch.ones(2, 4))
    assert len(compiled) == 1


def test_reading_leaves_the_data_loader_and_its_generator_as_they_are():
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.arange(8.0))
    loader = DataLoader(data, 2, shuffle=True, generator=generator, num_workers=2, persistent_workers=True)
    state = generator.get_state()
    assert len(list(first_batches([loader, [1, 2, 3]], 2))) == 4
    assert torch.equal(generator.get_state(), state)
    assert loader._iterator is None
    with pytest.raises(InvalidConfig, match="a list_iterator, which can be read only once"):
        list(first_batches([iter([1])], 1))
    assert copy_of({"loader": loader})["loader"] is loader
