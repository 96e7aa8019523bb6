"""The guard of `Nowcast`: what it may return, what it may do to the network, and the random numbers that it sees."""

import logging
import random

import numpy as np
import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, LayoutMismatch
from metaopt.nowcast import reestimate_batchnorm

from ..small_training import loss_at, network, nowcast, same_state, train, trained_alone


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType"),
        ((torch.tensor(1.0), 2), "returned tuple"),
        ({"loss": 1.0}, "returned dict"),
        (3, "returned int"),
        (True, "returned bool"),
        (torch.tensor(3), r"a tensor of shape \(\), torch.int64"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        (torch.empty(0), r"a tensor of shape \(0,\)"),
    ],
)
def test_a_guard_that_returns_no_loss_is_named_at_its_first_call(returned, message):
    model = network()
    with pytest.raises(
        InvalidConfig, match=f"the guard {message if 'returned' in message else 'returned.*' + message}"
    ):
        train(model, nowcast(model, "Hold", guard=lambda: returned), range(4))
    assert same_state(model, trained_alone(4))


@pytest.mark.parametrize("returned", [1.0, np.float32(1.0), np.ones(3), torch.ones(2, 3, requires_grad=True)])
def test_numbers_arrays_and_tensors_are_losses(returned):
    model = network()
    train(model, optimizer := nowcast(model, "Hold", guard=lambda: returned), range(4))
    assert optimizer.events[0].loss_before == 1.0


def test_other_numbers_of_losses_in_one_nowcast_are_refused_and_between_nowcasts_allowed():
    model, counts = network(), iter([3, 3, 5, 5, 3, 4])
    optimizer = nowcast(model, "Hold", guard=lambda: torch.ones(next(counts)))
    train(model, optimizer, range(8))
    with pytest.raises(InvalidConfig, match="the guard returned 4 losses, and 3 before in the same nowcast"):
        train(model, optimizer, range(8, 12))


def test_the_calls_of_one_nowcast_draw_the_same_numbers_and_those_of_the_next_draw_others():
    model, drawn = network(), []

    def guard():
        drawn.append((float(torch.rand(())), float(np.random.rand()), random.random()))
        return 1.0

    train(model, nowcast(model, "Hold", horizons=[2, 4], guard=guard), range(8))
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3] == drawn[4]
    assert not set(drawn[0]) & set(drawn[2])


def test_a_guard_with_dropout_accepts_what_is_better():
    model, dropout = network(), nn.Dropout(0.5)

    def guard():  # noise far larger than the gain: with other numbers at each call it would decide
        return (model[2].weight.sum().repeat(64) - 3.0) ** 2 + 100 * dropout(torch.ones(64))

    optimizer = nowcast(model, "Line", guard=guard)
    differences = []
    for step in range(0, 40, 4):
        train(model, optimizer, range(step, step + 4))
        event = optimizer.events[-1]
        differences.append(abs(event.loss_after - event.loss_before))
    assert max(differences) < 1.0


def test_random_numbers_modes_and_buffers_of_the_training_are_untouched():
    norm = nn.BatchNorm1d(6)
    model = network(norm)

    def guard():
        random.random(), np.random.rand(), torch.rand(1)
        model.eval() if torch.rand(()) < 0.5 else model.train()
        return loss_at(model, 0)

    draw = lambda: random.random() or np.random.rand() or torch.rand(1)  # noqa: E731
    optimizer = nowcast(
        model, guard=guard, reestimate=lambda: draw() and reestimate_batchnorm(model, [torch.ones(2, 4)])
    )
    model[0].eval()  # a mode of its own
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    train(model, optimizer, range(9))
    after = (random.random(), np.random.rand(), float(torch.rand(())))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert after == (random.random(), np.random.rand(), float(torch.rand(())))
    assert [module.training for module in model.modules()] == [True, False, True, True, True]


class Grows(nn.Module):
    """Has a buffer that grows, one that appears, one that is replaced, and extra state, in every forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(1))
        self.register_buffer("later", None)
        self.register_buffer("replaced", torch.zeros(2))
        self.calls = 0

    def forward(self, inputs):
        self.cache.resize_(len(self.cache) + 1).fill_(1.0)
        self.later = torch.ones(3)
        self.register_buffer(f"new_{self.calls}", torch.ones(1), persistent=False)
        self.replaced = self.replaced + 1
        self.calls += 1
        return inputs

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_buffers_that_grow_appear_or_are_replaced_in_the_guard_and_extra_state_are_restored():
    grows = Grows()
    model = network(grows)
    optimizer = nowcast(model, "Hold", guard=lambda: loss_at(model, 0), horizons=[2, 4])
    train(model, optimizer, range(3))
    before = {name: (id(buffer), buffer.clone()) for name, buffer in grows.named_buffers()}
    inner = nn.Sequential(model[0], *model[2:])  # trains the weights without the forward pass of the buffers
    train(inner, optimizer, range(3, 4))
    after = {name: (id(buffer), buffer.clone()) for name, buffer in grows.named_buffers()}
    assert {name: each[0] for name, each in after.items()} == {name: each[0] for name, each in before.items()}
    assert all(torch.equal(after[name][1], before[name][1]) for name in before)
    assert grows.calls == 3
    assert grows._non_persistent_buffers_set == {"new_0", "new_1", "new_2"}


def messages(caplog):
    return [record.message for record in caplog.records if record.name == "metaopt.nowcast.advice"]


def test_what_makes_nowcasts_harmful_is_told_once(caplog):
    model = network(nn.BatchNorm1d(6), nn.Dropout(0.1))
    with caplog.at_level(logging.WARNING):
        train(model, nowcast(model, "Hold", batchnorm_batches=0), range(12))
    assert [message[:30] for message in messages(caplog)] == [
        "Nowcast has no guard: every fi",
        "Sequential has BatchNorm layer",
    ]
    caplog.clear()
    train(model, nowcast(model, "Hold", guard=lambda: loss_at(model, 0), reestimate=lambda: None), range(12))
    assert [message[:65] for message in messages(caplog)] == [
        "the guard runs the model in training mode (BatchNorm1d, Dropout):"
    ]
    caplog.clear()

    def guard():
        model.eval()
        return loss_at(model, 0)

    train(model, nowcast(model, "Hold", guard=guard, reestimate=lambda: None), range(12))
    assert messages(caplog) == []
    assert model.training


class Sharded(nn.Module):
    """Stands for a wrapper of PyTorch's FSDP, which needs processes."""

    def __init__(self, model):
        super().__init__()
        self.module = model


Sharded.__name__ = "FullyShardedDataParallel"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 3, device="meta"), "weight of Linear is on the meta device"),
        (Sharded(nn.Linear(2, 3)), "sharded over processes"),
    ],
)
def test_networks_without_their_values_are_refused_when_built(model, message):
    with pytest.raises(LayoutMismatch, match=message):
        nowcast(model, "Hold")
