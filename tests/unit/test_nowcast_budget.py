"""`max_overhead` of `Nowcast`: which nowcasts take place within a time budget."""

import time

import pytest
import torch

from metaopt.core.errors import InvalidConfig
from metaopt.nowcast.budget import TimeBudget

from ..small_training import HELD_OUT, loss_at, network, nowcast, train

CPU = torch.device("cpu")


class Clock:
    """A clock that goes only when told to."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def spend(budget, clock, seconds):
    with budget.measured(CPU):
        clock.seconds += seconds


def spend_and_fail(clock, seconds):
    clock.seconds += seconds
    raise RuntimeError


def test_a_nowcast_is_allowed_when_the_training_since_the_last_one_has_paid_for_it(clock):
    budget = TimeBudget(0.1, clock)
    assert budget.allows(CPU)
    spend(budget, clock, 2.0)
    assert not budget.allows(CPU)
    clock.seconds += 19.9
    assert not budget.allows(CPU)
    clock.seconds += 0.2
    assert budget.allows(CPU)


@pytest.mark.parametrize("share", [0.01, 0.1, 1])
def test_nowcasts_add_at_most_the_share_whatever_they_and_the_steps_cost(clock, share):
    budget, generator = TimeBudget(share, clock), torch.Generator().manual_seed(0)
    trained, costs = 0.0, [0.0]
    for step, cost in zip(*torch.rand(2, 5000, generator=generator).tolist(), strict=True):
        clock.seconds += step
        trained += step
        if budget.allows(CPU):
            spend(budget, clock, cost)
            costs.append(cost)
    assert len(costs) > 10
    assert sum(costs[:-1]) <= share * trained
    assert sum(costs) > 0.4 * share * trained


def test_a_resumed_training_goes_on_with_the_budget(clock):
    budget = TimeBudget(0.1, clock)
    spend(budget, clock, 2.0)
    clock.seconds += 15.0
    state = budget.state_dict()
    resumed = TimeBudget(0.1, later := Clock())
    resumed.load_state_dict(state)
    later.seconds += 4.0
    assert not resumed.allows(CPU)
    later.seconds += 2.0
    assert resumed.allows(CPU)


def test_a_failed_nowcast_is_paid_for(clock):
    budget = TimeBudget(0.1, clock)
    with pytest.raises(RuntimeError), budget.measured(CPU):
        spend_and_fail(clock, 2.0)
    assert not budget.allows(CPU)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), "5%", True])
def test_other_values_are_refused(value):
    with pytest.raises(InvalidConfig, match=r"max_overhead is .*; expected a fraction"):
        TimeBudget(value)


def training(**options):
    model = network()

    def guard():
        time.sleep(0.05)
        return loss_at(model, HELD_OUT)

    return model, nowcast(model, guard=guard, **options)


def test_a_slow_guard_is_called_less_often_within_a_budget():
    model, optimizer = training(max_overhead=0.1)
    train(model, optimizer, range(24))
    assert [event.step for event in optimizer.events] == [4]
    other_model, other = training(max_overhead=0.1)
    other.load_state_dict(optimizer.state_dict())
    train(other_model, other, range(4))
    assert len(other.events) == 1


def test_without_a_limit_nothing_about_time_is_kept():
    model, optimizer = training()
    train(model, optimizer, range(4))
    state = optimizer.state_dict()
    assert "budget" not in state["nowcast"]
    training(max_overhead=0.1)[1].load_state_dict(state)
