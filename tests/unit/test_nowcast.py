import copy
import logging
import math

import pytest
import torch
from torch import nn

from metaopt.core.errors import CheckpointError, InvalidConfig, LayoutMismatch
from metaopt.generative import get_optimizer_model
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.extrapolation import HoldConfig
from metaopt.nowcast.optimizer import Nowcast
from metaopt.nowcast.policy import NowcastEvent
from metaopt.nowcast.reestimation import reestimate_batchnorm

from ..small_training import (
    HELD_OUT,
    adam,
    batch,
    guarded,
    loss_at,
    network,
    network_with_batchnorm,
    nowcast,
    same_state,
    train,
    trained_alone,
    weights,
)


class Shift(GenerativeOptimizer):
    """Adds a constant to the last snapshot, and remembers what it was told."""

    Config = HoldConfig

    def __init__(self, by, history=3):
        super().__init__()
        self.config, self.by, self.length, self.told = HoldConfig(), by, history, []

    @property
    def history(self):
        return self.length

    def extrapolate(self, history, t_history, t_end, layout):
        self.told.append((t_history[0].tolist(), float(t_end)))
        return history[:, -1] + self.by


@pytest.mark.parametrize("wrap", [nowcast, guarded])
def test_hold_is_the_base_optimizer_bit_for_bit(wrap):
    model = network()
    train(model, wrap(model, "Hold"), range(11))
    assert same_state(model, trained_alone(11))


def test_untrained_perceiver_is_the_base_optimizer_bit_for_bit():
    model = network()
    train(
        model,
        Nowcast(adam(model), model, get_optimizer_model("PerceiverOptimizer"), every=4, stride=2, max_overhead=None),
        range(9),
    )
    assert same_state(model, trained_alone(9))


def test_history_grows_to_its_bound():
    model, shift = network(), Shift(0.001)
    train(model, Nowcast(adam(model), model, shift, every=6, stride=2, horizons=9, max_overhead=None), range(18))
    assert shift.told == [([2, 4, 6], 15), ([8, 10, 12], 21), ([14, 16, 18], 27)]
    model, shift = network(), Shift(0.001, history=5)
    train(model, Nowcast(adam(model), model, shift, every=4, stride=2, max_overhead=None), range(8))
    assert shift.told == [([0, 2, 4], 8), ([0, 2, 4, 6, 8], 12)]


def test_history_moves_with_the_weights():
    model = network()
    optimizer = Nowcast(adam(model), model, Shift(0.5), every=4, stride=2, max_overhead=None)
    train(model, optimizer, range(4))
    _, before, now = optimizer.state_dict()["nowcast"]["history"]
    assert torch.equal(now, weights(model))
    assert torch.allclose(before, weights(trained_alone(2)) + 0.5)


def test_history_goes_on_after_a_rejected_nowcast():
    model, shift = network(), Shift(100.0, history=5)
    train(model, guarded(model, shift), range(8))
    assert shift.told == [([0, 2, 4], 8), ([0, 2, 4, 6, 8], 12)]


def test_starts_from_a_single_snapshot():
    model, shift = network(), Shift(0.001, history=1)
    train(model, Nowcast(adam(model), model, shift, every=1, stride=1, max_overhead=None), range(2))
    assert shift.told == [([1], 2), ([2], 3)]


def test_first_snapshot_is_of_the_weights_that_training_starts_with():
    model = network()
    optimizer = Nowcast(adam(model), model, get_optimizer_model("Hold"), every=4, stride=2, max_overhead=None)
    with torch.no_grad():
        model[0].weight.zero_()
    train(model, optimizer, range(1))
    assert optimizer.state_dict()["nowcast"]["history"][0][:24].eq(0).all()


def test_without_a_guard_the_proposal_is_applied_and_moments_are_kept():
    model, alone = network(), trained_alone(4)
    optimizer = Nowcast(adam(model), model, Shift(0.5), every=4, stride=2, max_overhead=None)
    train(model, optimizer, range(4))
    assert torch.equal(weights(model), weights(alone) + 0.5)
    assert all(float(optimizer.state[p]["step"]) == 4 for p in model.parameters())
    assert all(optimizer.state[p]["exp_avg"].abs().sum() > 0 for p in model.parameters())
    assert optimizer.events == [NowcastEvent(4, None, None, accepted=True, horizon=4, followed=True)]


@pytest.mark.parametrize("build", [network, network_with_batchnorm])
def test_rejection_restores_weights_and_buffers_exactly(build):
    model = build()
    # The guard runs in training mode: even one that moves BatchNorm statistics leaves no trace.
    optimizer = guarded(model, Shift(100.0), reestimate=lambda: reestimate_batchnorm(model, [batch(1), batch(2)]))
    train(model, optimizer, range(10))
    assert same_state(model, trained_alone(10, build))
    assert [event.accepted for event in optimizer.events] == [False, False]
    assert all(event.loss_after > event.loss_before for event in optimizer.events)


def test_float64_weights_are_restored_in_full():
    model, alone = network().double(), network().double()
    inputs = torch.randn(8, 4, dtype=torch.float64)
    guard = map(float, range(10)).__next__  # rises, whatever the weights
    for mover, net in (
        (Nowcast(adam(model), model, Shift(1.0), every=1, stride=1, horizons=1, guard=guard, max_overhead=None), model),
        (adam(alone), alone),
    ):
        net(inputs).square().mean().backward()
        mover.step()
    assert same_state(model, alone)


def test_guard_keeps_what_does_not_raise_the_loss():
    model = network()
    losses = iter([1.0, 1.0, 1.0, 1.5, 2.0, torch.tensor(0.5)])
    optimizer = Nowcast(
        adam(model), model, Shift(0.1), every=2, stride=2, horizons=2, guard=lambda: next(losses), max_overhead=None
    )
    train(model, optimizer, range(6))
    assert optimizer.events == [
        (2, 1.0, 1.0, True, 2, True, 2),
        (4, 1.0, 1.5, False, 2, False, 2),
        (6, 2.0, 0.5, True, 2, True, 2),
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_proposal_that_is_not_finite_is_rejected_and_reported_once(bad, caplog):
    model = network()
    with caplog.at_level(logging.WARNING):
        train(model, Nowcast(adam(model), model, Shift(bad), every=2, stride=2, max_overhead=None), range(6))
    assert same_state(model, trained_alone(6))
    assert [record.message for record in caplog.records if record.name == Nowcast.__module__] == [
        "a forecast of the weights is not finite at step 2; training continues. Further warnings are suppressed"
    ]


@pytest.mark.parametrize("losses", [(1.0, math.nan), (math.nan, 1.0), (1.0, math.inf), (1.0, -math.inf)])
def test_guard_that_is_not_finite_rejects(losses, caplog):
    model, looks = network(), iter(losses)
    optimizer = Nowcast(
        adam(model), model, Shift(0.1), every=2, stride=2, horizons=2, guard=lambda: next(looks), max_overhead=None
    )
    train(model, optimizer, range(2))
    assert not optimizer.events[0].accepted
    assert "the guard's loss is not finite" in caplog.text
    assert same_state(model, trained_alone(2))


def test_guard_runs_without_gradients():
    model, modes = network(), []

    def guard():
        modes.append(torch.is_grad_enabled())
        return 1.0

    train(
        model,
        Nowcast(adam(model), model, Shift(0.1), every=2, stride=2, horizons=2, guard=guard, max_overhead=None),
        range(2),
    )
    assert modes == [False, False]


def make_resumable(model):
    return guarded(model, every=6, horizons=6)


@pytest.mark.parametrize("stop", [1, 5, 6, 9])
def test_resume_equals_one_go_bit_for_bit(stop):
    whole = network()
    in_one_go = make_resumable(whole)
    train(whole, in_one_go, range(20))
    first = network()
    before = make_resumable(first)
    train(first, before, range(stop))
    state, saved = copy.deepcopy(before.state_dict()), copy.deepcopy(first.state_dict())
    second = network()
    second.load_state_dict(saved)
    after = make_resumable(second)
    after.load_state_dict(state)
    train(second, after, range(stop, 20))
    assert same_state(second, whole)
    assert after.events == in_one_go.events
    assert after.steps == 20


def test_state_does_not_change_while_training_goes_on():
    model = network()
    optimizer = make_resumable(model)
    train(model, optimizer, range(3))
    state = optimizer.state_dict()["nowcast"]
    history = [past.clone() for past in state["history"]]
    train(model, optimizer, range(3, 12))
    assert state["steps"] == 3
    assert all(torch.equal(a, b) for a, b in zip(history, state["history"], strict=True))


def test_scheduler_moves_the_base_optimizer_also_after_loading():
    model = network()
    optimizer = Nowcast(adam(model), model, get_optimizer_model("Hold"), every=4, stride=2, max_overhead=None)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train(model, optimizer, range(1))
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.005)
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.state is optimizer.base.state


def test_closure_gives_its_loss_and_lets_lbfgs_run():
    model = network()
    optimizer = Nowcast(torch.optim.LBFGS(model.parameters()), model, Shift(0.0), every=2, stride=1, max_overhead=None)

    def closure():
        optimizer.zero_grad()
        loss = loss_at(model, HELD_OUT)
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_parameter_groups_frozen_and_tied_weights():
    model = network()
    model.add_module("again", model[2])
    model[0].bias.requires_grad_(False)
    frozen = model[0].bias.clone()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}]
    optimizer = Nowcast(torch.optim.SGD(groups, lr=0.01), model, Shift(0.5), every=1, stride=1, max_overhead=None)
    assert optimizer.layout.size == 24 + 18 + 3
    model[:3](batch(0)[0]).square().mean().backward()
    optimizer.step()
    assert torch.equal(model[0].bias, frozen)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]


def test_reestimate_is_called_between_the_looks_of_the_guard():
    model, calls = network(), []
    optimizer = Nowcast(
        adam(model),
        model,
        Shift(0.1),
        every=2,
        stride=2,
        horizons=2,
        guard=lambda: float(len(calls.append("guard") or "") or 1),
        reestimate=lambda: calls.append("reestimate"),
        max_overhead=None,
    )
    train(model, optimizer, range(2))
    assert calls == ["guard", "reestimate", "guard"]


def test_batchnorm_statistics_are_the_mean_over_the_batches():
    model = network_with_batchnorm()
    inputs = [batch(step)[0] for step in range(3)]
    reestimate_batchnorm(model, [batch(step) for step in range(3)])
    hidden = torch.stack([model[0](some).mean(0) for some in inputs]).mean(0)
    assert torch.allclose(model[1].running_mean, hidden, atol=1e-6)
    assert model.training
    assert model[1].momentum == 0.1


def test_reestimating_draws_no_randomness_and_spares_networks_without_batchnorm():
    model, plain = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)), network()
    expected, before = torch.get_rng_state(), copy.deepcopy(plain)
    reestimate_batchnorm(model, [batch(0)])
    reestimate_batchnorm(plain, [batch(0)])
    assert torch.equal(torch.get_rng_state(), expected)
    assert same_state(plain, before)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"every": 50, "stride": 20}, r"every is 50; expected a multiple of stride \(20\).*Set every=40"),
        ({"every": 0, "stride": 1}, "every is 0; expected a positive integer"),
        ({"every": 4, "stride": -2}, "stride is -2"),
        ({"every": 4, "stride": 2, "horizons": 0}, "a horizon is 0"),
        ({"every": 4.0, "stride": 2}, "every is 4.0"),
    ],
)
def test_impossible_schedules_are_refused(steps, message):
    model = network()
    with pytest.raises(InvalidConfig, match=message):
        Nowcast(adam(model), model, get_optimizer_model("Hold"), **steps, max_overhead=None)


def test_base_optimizer_over_other_parameters_is_refused():
    model = network()
    with pytest.raises(LayoutMismatch, match=r"Adam moves 4 tensors that are not trainable weights of Sequential"):
        Nowcast(adam(network()), model, get_optimizer_model("Hold"), max_overhead=None)
    with pytest.raises(LayoutMismatch, match=r"leaves out 2 that are \(2.weight, 2.bias\)"):
        Nowcast(torch.optim.SGD(model[0].parameters(), lr=0.1), model, get_optimizer_model("Hold"), max_overhead=None)


def test_state_of_something_else_is_refused_and_changes_nothing():
    model = network()
    optimizer = make_resumable(model)
    train(model, optimizer, range(3))
    with pytest.raises(CheckpointError, match="not a state of Nowcast"):
        optimizer.load_state_dict(optimizer.base.state_dict())
    state = optimizer.state_dict()["nowcast"]
    for lost in state:
        older = {name: value for name, value in state.items() if name != lost}
        with pytest.raises(CheckpointError, match=f"no {lost}: another version"):
            optimizer.load_state_dict({**optimizer.state_dict(), "nowcast": older})
    foreign = {**optimizer.state_dict(), "nowcast": {**optimizer.state_dict()["nowcast"], "history": [torch.zeros(7)]}}
    with pytest.raises(LayoutMismatch, match="got 7 weights"):
        optimizer.load_state_dict(foreign)
    assert optimizer.steps == 3
