"""Trainable averaging: its coefficients follow the gradient, from the mean of the last snapshots."""

import pytest
import torch
from torch import nn

from metaopt.core.progress import NO_PROGRESS
from metaopt.evaluation import trainable_averaging
from metaopt.evaluation.budget_runs import BudgetRun
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.evaluation.trainable_averaging import CombinationDescent
from metaopt.tasks import load_task
from metaopt.weights.layout import Layout


class Tied(nn.Module):
    """A network with a tensor of two names, a frozen one, and one that the loss does not depend on."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(3, 3), nn.Linear(3, 3, bias=False), nn.Linear(2, 2)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.second(self.frozen(torch.tanh(self.first(inputs))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Tied()


@pytest.fixture
def snapshots(network):
    return torch.randn(4, Layout.of(network).size)


def loss_of(network, inputs):
    return network(inputs).square().mean()


def combined(coefficients, snapshots, layout):
    """The combination of each tensor by the formula of the class."""
    parts = zip(coefficients, layout.split(snapshots), strict=True)
    return torch.cat([part.mean(0) + row @ (part[1:] - part[:-1]) for row, part in parts])


def test_without_steps_the_network_has_the_mean_of_the_snapshots(network, snapshots):
    layout, frozen = Layout.of(network), network.frozen.weight.clone()
    CombinationDescent(network, layout, snapshots, lr=0.1)
    torch.testing.assert_close(layout.read(network), snapshots.mean(0))
    assert torch.equal(network.frozen.weight, frozen)


def test_the_coefficients_are_those_of_adam_with_gradients_of_autograd(network, snapshots):
    layout, inputs = Layout.of(network), torch.randn(5, 3)
    optimizer = CombinationDescent(network, layout, snapshots, lr=0.1)
    expected = nn.Parameter(torch.zeros(len(layout.tensors), 3))
    adam = torch.optim.Adam([expected], lr=0.1)
    copied = Tied()
    copied.load_state_dict(network.state_dict())
    for lr in (0.1, 0.1, 0.01):  # as a scheduler sets it
        optimizer.param_groups[0]["lr"] = adam.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss_of(network, inputs).backward()
        optimizer.step()
        weights = layout.unflatten(combined(expected, snapshots, layout))
        adam.zero_grad()
        torch.func.functional_call(copied, weights, inputs, tie_weights=True).square().mean().backward()
        adam.step()
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(layout.read(network), combined(expected, snapshots, layout).detach())


def test_one_snapshot_leaves_nothing_to_learn(network, snapshots):
    layout = Layout.of(network)
    optimizer = CombinationDescent(network, layout, snapshots[:1], lr=0.1)
    assert optimizer.step(lambda: loss_of(network, torch.ones(2, 3)).backward() or 3.0) == 3.0
    assert torch.equal(layout.read(network), snapshots[0])


@pytest.fixture(scope="module")
def setup():
    case = EvaluateConfig(
        target_model="MLP", target_options={"widths": [16]}, steps=120, every=18, stride=9, evaluate_every=30, lr=0.003
    )
    return RunSetup(case, load_task("digits"), 0)


def last_snapshots(setup, steps, count):
    """Snapshots of a training of some steps, a stride apart, the last one at its end."""
    trunk, batches, found = BudgetRun(setup), setup.batches(), []
    while trunk.steps < steps:
        trunk.train(batches, min(setup.config.stride, steps - trunk.steps), NO_PROGRESS)
        found.append(trunk.weights())
    return torch.stack(found[-count:])


def test_the_combination_ends_below_the_mean_of_the_same_snapshots(setup):
    (*_, learned) = trainable_averaging.trainable_averaging(setup)
    mean = last_snapshots(setup, 108, 10).mean(0)
    assert learned.step == 120
    assert learned.loss < 0.95 * setup.validation_loss(mean)


def test_a_branch_combines_the_last_snapshots_of_its_part(setup, monkeypatch):
    combinations, descent = [], trainable_averaging._descent

    def recorded(snapshots, *rest):
        combinations.append(snapshots)
        return descent(snapshots, *rest)

    monkeypatch.setattr(trainable_averaging, "_descent", recorded)
    list(trainable_averaging.trainable_averaging(setup))
    assert [len(each) for each in combinations] == [3, 6, 9, 10]
    assert torch.equal(combinations[0], last_snapshots(setup, 27, 10))
    assert torch.equal(combinations[-1], last_snapshots(setup, 108, 10))
