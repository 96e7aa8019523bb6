"""`max_overhead` of `Nowcast`: which nowcasts take place within a time budget, how large they are, when they stop."""

import copy
import logging
import time

import pytest
import torch

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import Nowcast, guard_from
from metaopt.nowcast.budget import TimeBudget
from metaopt.nowcast.costs import NowcastCost
from metaopt.nowcast.payoff import steps_saved, why_it_does_not_pay
from metaopt.nowcast.policy import NowcastEvent
from metaopt.nowcast.proposals import some_horizons

from ..small_training import HELD_OUT, batch, loss_at, network, nowcast, same_state, train, trained_alone

CPU = torch.device("cpu")


class Clock:
    """A clock that goes only when told to."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


class Training:
    """A training with nowcasts by a budget and a clock.

    Args:
        step, upkeep: time of a step, and of an update of the averages [seconds].
        cost: time of a whole nowcast, of which a fifth is always needed [seconds].
        before: time of what precedes the base optimizer's part of each step [seconds].
        base: time of the base optimizer's part, within that of a step [seconds].
    """

    def __init__(self, limit, step=0.1, upkeep=0.0, cost=1.0, before=0.0, base=0.02):
        self.clock = Clock()
        self.budget = TimeBudget(limit, self.clock)
        self.step, self.upkeep, self.cost, self.before, self.base = step, upkeep, cost, before, base
        self.shares, self.steps = [], 0

    def run(self, steps, every=10):
        for _ in range(steps):
            self.clock.seconds += self.step - self.base
            self.steps += 1
            if self.steps % self.budget.averaged_every:
                self.clock.seconds += self.base
                continue
            self.budget.begin_step(CPU)
            self.clock.seconds += self.before
            self.budget.begin_base()
            self.clock.seconds += self.base
            self.budget.end_base()
            self.clock.seconds += self.upkeep
            if not self.steps % every:
                self.nowcast()
                self.budget.thin_averages(10, CPU)
            self.budget.end_step(self.steps)

    def nowcast(self):
        share = self.budget.plan(0.25, 1000, CPU)
        self.shares.append(share)
        if share is not None:
            with self.budget.nowcast():
                total = self.cost * (0.2 + 0.8 * share)
                self.clock.seconds += total
            part = 0.4 * self.cost * share
            self.budget.add_nowcast(NowcastCost(self.steps, part, part, 0, total, share))

    @property
    def overhead(self):
        """What all seconds are above those of the steps alone."""
        return (self.clock.seconds - 100) / (self.steps * self.step) - 1


def test_nowcasts_that_cost_little_are_whole():
    training = Training(0.05, cost=0.04)
    training.run(400)
    taken = [share for share in training.shares if share is not None]
    assert set(taken[2:]) == {1.0}
    assert None not in training.shares[training.shares.index(0.25) :]
    assert training.overhead < 0.05


def test_nowcasts_are_first_shrunk_and_then_spaced():
    small = Training(0.05, cost=0.1)  # a tenth of the ten steps between two
    small.run(1200)
    taken = [share for share in small.shares if share is not None]
    assert len(taken) > 45
    assert 0.25 <= min(taken) < 0.6
    spaced = Training(0.05, cost=2.0)
    spaced.run(1000)
    assert 3 < sum(share is not None for share in spaced.shares) < 12
    assert small.overhead <= 0.051
    assert spaced.overhead <= 0.055


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("upkeep", "before"), [(0.0, 0.0), (0.003, 0.0), (0.02, 0.0), (0.0, 0.0004), (0.003, 0.0004)])
@pytest.mark.parametrize("cost", [0.01, 0.1, 1.0, 5.0])
def test_all_that_is_added_stays_within_the_limit_whatever_it_costs(limit, upkeep, before, cost):
    training = Training(limit, upkeep=upkeep, cost=cost, before=before)
    training.run(6000)
    one = cost / (training.steps * training.step)
    assert training.overhead <= max(limit, upkeep / 10 / training.step) + one + 0.002
    assert training.overhead == pytest.approx(training.budget.overhead, rel=0.02, abs=1e-3)
    if upkeep <= 0.003:
        assert sum(share is not None for share in training.shares) >= 1


@pytest.mark.parametrize("steps", [100, 300, 1000])
@pytest.mark.parametrize("cost", [0.05, 0.5, 1.0])
def test_no_training_is_so_short_that_the_first_nowcasts_exceed_the_limit(steps, cost):
    training = Training(0.05, cost=cost, upkeep=0.001, before=0.001)
    training.run(steps)
    assert training.overhead <= 0.05
    if steps == 1000:
        assert any(share is not None for share in training.shares)


def test_what_is_done_at_every_step_is_counted():
    training = Training(0.05, upkeep=0.001, before=0.002)
    training.run(9, every=10)
    assert training.budget.upkeep == pytest.approx(8 * 0.003)
    assert training.budget.training == pytest.approx(8 * 0.1)


def test_averages_are_updated_less_often_where_they_would_use_the_whole_budget():
    training = Training(0.05, upkeep=0.009, cost=0.1)
    training.run(200)
    assert training.budget.averaged_every == 5
    with_less = Training(0.05, upkeep=0.009, cost=0.1, before=0.003)
    with_less.run(200)
    assert with_less.budget.averaged_every == 10
    rare = Training(0.05, upkeep=0.001, cost=0.1)
    rare.run(200)
    assert rare.budget.averaged_every == 1
    unlimited = Training(None, upkeep=0.01)
    unlimited.run(200)
    assert unlimited.budget.averaged_every == 1
    assert set(unlimited.shares) == {1.0}


def test_pauses_give_no_credit():
    training = Training(0.05, cost=10.0)
    training.run(300)
    assert sum(share is not None for share in training.shares) == 1
    training.clock.seconds += 10_000
    training.run(300)
    assert sum(share is not None for share in training.shares) == 1


def test_a_resumed_training_goes_on_with_the_budget():
    training = Training(0.05)
    training.run(100)
    resumed = Training(0.05)
    resumed.budget.load_state_dict(training.budget.state_dict())
    assert resumed.budget.credit == training.budget.credit
    resumed.clock.seconds += 1000  # between the processes
    resumed.steps = training.steps
    training.run(1), resumed.run(1)
    assert resumed.budget.credit <= training.budget.credit
    old = TimeBudget(0.05)
    old.load_state_dict({"cost": 1.0, "elapsed": 3.0})  # of the first version
    assert old.count == 0


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), "5%", True])
def test_other_values_are_refused(value):
    with pytest.raises(InvalidConfig, match=r"max_overhead is .*; expected a fraction"):
        TimeBudget(value)


@pytest.mark.parametrize(
    ("share", "last", "expected"),
    [(1, 40, (20, 40, 80, 160)), (0.5, 40, (40, 80)), (0.25, 160, (160,)), (0.5, 160, (80, 160)), (0.01, 20, (20,))],
)
def test_fewer_horizons_are_those_around_the_last_accepted_one(share, last, expected):
    events = [NowcastEvent(40, 1.0, 0.5, True, last)]
    assert some_horizons((20, 40, 80, 160), share, events) == expected


def test_without_an_accepted_horizon_others_are_tried_in_turn():
    events, seen = [], set()
    for step in range(4):
        (horizon,) = some_horizons((20, 40, 80, 160), 0.1, events)
        seen.add(horizon)
        events.append(NowcastEvent(step, 1.0, 2.0, False, horizon))
    assert seen == {20, 40, 80, 160}


def events_of(losses, accepted=True, horizon=40):
    return [
        NowcastEvent(40 * number, before, after, accepted, horizon)
        for number, (before, after) in enumerate(losses, start=1)
    ]


def costs_of(seconds, count=10):
    return [NowcastCost(0, 0.0, 0.0, 0.0, seconds)] * count


def test_a_nowcast_saves_the_steps_in_which_training_lowers_the_loss_as_much():
    falling = [(1 - 0.01 * number, 1 - 0.01 * number - 0.005) for number in range(10)]  # 0.01 in 40 steps
    assert steps_saved(events_of(falling)) == pytest.approx(10 * 20)
    assert steps_saved(events_of(falling, accepted=False)) == 0
    large = [(before, before - 1) for before, _ in falling]
    assert steps_saved(events_of(large, horizon=60)) == 10 * 60  # no more than the horizon
    assert steps_saved(events_of([(1.0, 0.9)] * 10)) == 10 * 40


def test_nowcasts_do_not_pay_if_none_of_ten_was_accepted_or_they_take_longer_than_they_save():
    falling = [(1 - 0.01 * number, 1 - 0.01 * number - 0.005) for number in range(10)]
    good, bad = events_of(falling), events_of(falling, accepted=False)
    assert why_it_does_not_pay(good, costs_of(0.1), 0.01) is None
    assert why_it_does_not_pay(bad[:9], costs_of(0.1), 0.01) is None
    assert why_it_does_not_pay([*good, *bad], costs_of(0.1, 20), 0.01) == "none of the last 10 nowcasts was accepted"
    assert why_it_does_not_pay(good, costs_of(0.3), 0.01) == (
        "the last 10 nowcasts took 3 s and saved steps of about 2 s of training"
    )
    unguarded = [event._replace(loss_before=None, loss_after=None) for event in good]
    assert why_it_does_not_pay(unguarded, costs_of(100.0), 0.01) is None


# In a training


def training(forecaster="Line", **options):
    model = network()

    def guard():
        time.sleep(0.05)
        return loss_at(model, HELD_OUT)

    return model, nowcast(model, forecaster, guard=guard, **options)


def test_a_slow_guard_is_called_less_often_within_a_budget():
    model, optimizer = training(max_overhead=2.0)
    train(model, optimizer, range(160))
    assert 1 <= len(optimizer.costs) <= 20  # without a limit 40
    assert optimizer.costs[0].guard > 0.1
    _, other = training(max_overhead=2.0)
    other.load_state_dict(optimizer.state_dict())
    assert (other.events, other.costs) == (optimizer.events, optimizer.costs)


def test_a_failed_nowcast_is_paid_for():
    model = network()
    optimizer = nowcast(model, guard=lambda: time.sleep(0.2) or 1 / 0, max_overhead=2.0)
    with pytest.raises(ZeroDivisionError):
        train(model, optimizer, range(160))
    train(model, optimizer, range(40))
    assert optimizer.events == []


def test_without_a_limit_nothing_about_time_is_kept():
    model, optimizer = training()
    train(model, optimizer, range(4))
    state = optimizer.state_dict()
    assert "budget" not in state["nowcast"]
    training(max_overhead=1.0)[1].load_state_dict(state)


def test_a_budget_is_the_default():
    model = network()
    optimizer = Nowcast(torch.optim.SGD(model.parameters(), lr=0.1), model, get_optimizer_model("Line"))
    assert optimizer._record.budget.max_overhead == 0.05


@pytest.mark.parametrize("averaging", [0.0, 0.8])
def test_nowcasts_that_are_never_accepted_stop_and_say_so_once(averaging, caplog):
    def build():
        model = network()
        losses = iter(range(10**6))  # a forecast is never better
        forecaster = get_optimizer_model("Line", averaging=averaging)
        options = {"guard": lambda: float(next(losses)), "max_overhead": 1e6, "ema": 0.9}
        return model, nowcast(model, forecaster, **options)

    model, optimizer = build()
    with caplog.at_level(logging.WARNING):
        train(model, optimizer, range(80))
    told = [record.message for record in caplog.records if "nowcasts are off" in record.message]
    assert len(told) == 1
    assert told[0].startswith("nowcasts are off from step 40 on: none of the last 10 nowcasts was accepted. The base")
    assert len(optimizer.events) == 10
    assert same_state(model, trained_alone(80))
    assert not len(optimizer._tracked.history)
    assert optimizer.average.updates == 80
    assert optimizer.nowcast(4) is None
    caplog.clear()
    resumed_model, resumed = build()
    resumed_model.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(resumed_model, resumed, range(80, 100)), train(model, optimizer, range(80, 100))
    assert len(resumed.events) == 10
    assert same_state(resumed_model, model)
    assert "nowcasts are off" not in caplog.text


def test_a_guard_from_data_is_shrunk():
    model, sizes = network(), []

    def loss(outputs, labels):
        sizes.append(len(labels))
        time.sleep(len(labels) / 5000)
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    guard = guard_from(batch(HELD_OUT, 640), loss, batch_size=640, examples=640)
    optimizer = nowcast(model, guard=guard, every=40, stride=20, max_overhead=0.5)
    train(model, optimizer, range(400))
    assert 32 <= min(sizes) < 320
    assert optimizer.costs[0].share == min(32 / 640, 1)
