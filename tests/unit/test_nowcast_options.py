"""What Nowcast does beyond the plain case: several horizons, a running average, moments, odd trainings, bad input."""

import contextlib
import copy
import io
import logging
import math

import pytest
import torch
from torch import nn

import metaopt
from metaopt.core.errors import InvalidConfig, LayoutMismatch, UnknownName
from metaopt.generative import files as nowcast_sources
from metaopt.generative import get_optimizer_model
from metaopt.generative.base import GenerativeOptimizer
from metaopt.generative.extrapolation import HoldConfig
from metaopt.generative.files import save_optimizer
from metaopt.nowcast import Nowcast, NowcastPolicy
from metaopt.weights.averaging import SHORT_DECAY, ExponentialMovingAverage
from metaopt.weights.layout import Layout

from ..small_training import (
    adam,
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


class Drift(GenerativeOptimizer):
    """Adds a thousandth of the horizon to the last snapshot, and counts its calls."""

    Config = HoldConfig

    def __init__(self):
        super().__init__()
        self.config, self.sizes = HoldConfig(), []

    @property
    def history(self):
        return 3

    def extrapolate(self, history, t_history, t_end, layout):
        self.sizes.append(len(history))
        return history[:, -1] + (t_end - t_history[:, -1]).unsqueeze(1) / 1000


def test_best_of_several_horizons_stays_and_all_are_predicted_in_one_call():
    model, drift, losses = network(), Drift(), iter([5.0, 4.0, 2.0, 3.0])
    optimizer = nowcast(model, drift, every=32, horizons=[4, 8, 16], guard=lambda: next(losses))
    train(model, optimizer, range(32))
    assert torch.allclose(weights(model), weights(trained_alone(32)) + 0.008)
    assert optimizer.events == [(32, 5.0, 2.0, True, 8, True, 4)]
    assert drift.sizes == [3]


def test_unless_told_otherwise_a_guard_chooses_among_several_horizons():
    model, drift = network(), Drift()
    optimizer = Nowcast(adam(model), model, drift, every=4, stride=2, guard=lambda: 1.0, max_overhead=None)
    assert optimizer.policy.all_horizons == (2, 6, 16, 32)
    assert Nowcast(
        adam(model), model, drift, every=2, stride=2, guard=lambda: 1.0, max_overhead=None
    ).policy.all_horizons == (2, 4, 8, 16)
    assert Nowcast(adam(model), model, drift, every=4, stride=2, max_overhead=None).policy.proposed(
        8, guarded=False
    ) == (4,)


def test_only_horizons_up_to_half_of_the_steps_so_far_are_proposed_and_the_shortest():
    optimizer = nowcast(network(), Drift(), every=2, horizons=[12, 4, 2], guard=lambda: 1.0)
    train(optimizer.model, optimizer, range(24))
    assert [event.guard_calls - 1 for event in optimizer.events] == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3]


def test_several_horizons_of_a_large_network_are_predicted_one_by_one_and_the_best_again(monkeypatch):
    monkeypatch.setattr("metaopt.nowcast.proposals._WEIGHTS_AT_ONCE", 100)
    model, drift, losses = network(), Drift(), iter([5.0, 4.0, 2.0, 3.0])
    optimizer = nowcast(model, drift, every=32, horizons=[4, 8, 16], guard=lambda: next(losses))
    train(model, optimizer, range(32))
    assert torch.allclose(weights(model), weights(trained_alone(32)) + 0.008)
    assert drift.sizes == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("losses", "horizon", "calls"),
    [
        ([5.0, 4.0, 4.5, 1.0], 4, 3),
        ([5.0, 4.0, 3.0, 1.0], 16, 4),
        ([5.0, 4.0, 4.0, 4.0], 4, 4),
        ([5.0, 4.0, math.nan], 4, 3),
        ([5.0, math.nan, 2.0, 3.0], 8, 4),
    ],
)
def test_with_stop_early_no_horizon_is_proposed_after_one_that_is_worse(losses, horizon, calls):
    model, given = network(), iter(losses)
    policy = NowcastPolicy(every=32, stride=2, horizons=(4, 8, 16), stop_early=True)
    optimizer = Nowcast(adam(model), model, Drift(), policy=policy, guard=lambda: next(given), max_overhead=None)
    train(model, optimizer, range(32))
    assert (optimizer.events[0].horizon, optimizer.events[0].guard_calls) == (horizon, calls)
    ranks = torch.tensor([*losses[1:], *([0.0] * (4 - len(losses)))]).view(-1, 1, 1)
    assert policy.horizons[int(policy.choose(torch.tensor([[5.0]]), ranks).best)] == horizon


def test_none_of_several_horizons_stays_where_all_are_worse():
    model, losses = network(), iter([1.0, 4.0, 2.0, math.nan])
    optimizer = nowcast(model, Drift(), every=32, horizons=[4, 8, 16], guard=lambda: next(losses))
    train(model, optimizer, range(32))
    assert same_state(model, trained_alone(32))
    assert optimizer.events == [(32, 1.0, 2.0, False, 8, False, 4)]


def test_first_horizon_is_the_one_without_a_guard():
    model = network()
    optimizer = nowcast(model, Drift(), horizons=[4, 8])
    train(model, optimizer, range(4))
    assert optimizer.events == [(4, None, None, True, 4, True, 0)]


def test_statistics_belong_to_the_horizon_that_stays():
    model, losses = network_with_batchnorm(), iter([5.0, 1.0, 2.0])
    optimizer = nowcast(model, Drift(), horizons=[4, 8], guard=lambda: next(losses), reestimate=lambda: seen(model))
    count = iter([1.0, 2.0])

    def seen(model):
        model[1].running_mean.fill_(next(count))

    train(model, optimizer, range(4))
    assert optimizer.events[0].horizon == 4
    assert model[1].running_mean.eq(1).all()


def test_running_average_is_corrected_for_its_start_and_moves_with_a_nowcast():
    model, expected = network(), None
    optimizer = nowcast(model, Drift(), ema=0.9)
    total, mass = torch.zeros(optimizer.layout.size), 0.0
    for step in range(3):
        train(model, optimizer, [step])
        total, mass = 0.9 * total + 0.1 * weights(model), 0.9 * mass + 0.1
        expected = total / mass
    before = copy.deepcopy(model)
    with optimizer.averaged_weights() as averaged:
        assert torch.allclose(weights(averaged), expected, atol=1e-6)
    assert same_state(model, before)
    train(model, optimizer, [3])
    total, mass = 0.9 * total + 0.1 * (weights(model) - 0.004), 0.9 * mass + 0.1
    with optimizer.averaged_weights():
        assert torch.allclose(weights(model), total / mass + 0.004, atol=1e-6)


class AverageDrift(Drift):
    """The same for a running average, whose snapshots it keeps."""

    averaging = 0.9

    def extrapolate(self, history, t_history, t_end, layout):
        self.shown = history[0].clone()
        return super().extrapolate(history, t_history, t_end, layout)


def average_of(model, steps, decay=0.9):
    average, optimizer = ExponentialMovingAverage(decay), adam(model)
    for step in steps:
        train(model, optimizer, [step])
        average.update(list(model.parameters()))
    return torch.cat([tensor.flatten() for tensor in average.tensors])


def test_an_optimizer_of_averages_is_shown_them_and_moves_the_weights_by_its_change():
    model, drift = network(), AverageDrift()
    optimizer = nowcast(model, drift)
    train(model, optimizer, range(4))
    average = average_of(alone := network(), range(4))
    assert torch.allclose(drift.shown[-1], average)
    assert torch.allclose(weights(model), weights(alone) + 0.004)
    with optimizer.averaged_weights():
        assert torch.allclose(weights(model), average + 0.004)
    history = optimizer.state_dict()["nowcast"]["history"]
    assert torch.allclose(torch.stack(history), drift.shown + 0.004)


def test_its_guard_looks_at_averages_and_restores_the_weights():
    model, seen = network(), []
    optimizer = nowcast(model, AverageDrift(), guard=lambda: seen.append(weights(model)) or float(len(seen)))
    train(model, optimizer, range(4))
    average = average_of(alone := network(), range(4))
    assert torch.allclose(seen[0], average)
    assert torch.allclose(seen[1], average + 0.004)
    assert same_state(model, alone)
    assert optimizer.events == [(4, 1.0, 2.0, False, 4, False, 2)]


def test_weights_follow_where_their_short_average_is_better_off_too():
    model, seen, losses = network(), [], iter([2.0, 1.0, 2.0, 1.0])
    guard = lambda: seen.append(weights(model)) or next(losses)  # noqa: E731
    optimizer = nowcast(model, AverageDrift(), guard=guard)
    train(model, optimizer, range(4))
    short = average_of(network(), range(4), SHORT_DECAY)
    assert torch.allclose(seen[2], short)
    assert torch.allclose(seen[3], short + 0.004)
    assert torch.allclose(weights(model), weights(trained_alone(4)) + 0.004)
    assert optimizer.events == [(4, 2.0, 1.0, True, 4, True, 4)]


def test_where_it_is_not_only_the_average_in_use_takes_the_prediction_until_the_next_nowcast():
    model, drift, losses = network(), AverageDrift(), iter([2.0, 1.0, 1.0, 2.0, 1.0, 2.0])
    optimizer = nowcast(model, drift, guard=lambda: next(losses))
    alone = network()
    for steps, lead in ((range(4), 0.004), (range(4, 6), 0.004 * 0.9**2), (range(6, 8), 0.0)):
        train(model, optimizer, steps)
        with optimizer.averaged_weights():
            assert torch.allclose(weights(model), average_of(alone := network(), range(steps.stop)) + lead, atol=1e-6)
        assert same_state(model, alone)
    assert torch.allclose(drift.shown[-1], average_of(network(), range(8)))
    assert optimizer.events == [(4, 2.0, 1.0, True, 4, False, 4), (8, 1.0, 2.0, False, 4, False, 2)]


@pytest.mark.parametrize(("asked", "followed"), [({}, False), ({"min_cosine": -1.0}, True)])
def test_weights_follow_only_where_training_goes_straight_on(asked, followed):
    model = network()
    optimizer = Nowcast(
        adam(model), model, AverageDrift(), every=6, stride=2, horizons=4, guard=lambda: 1.0, **asked, max_overhead=None
    )
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1.0 if step < 3 else -1.0
        train(model, optimizer, [step])
    [event] = optimizer.events
    assert event.accepted
    assert event.followed is followed
    assert event.guard_calls == (4 if followed else 2), "the guard is not asked again where the answer is known"


@pytest.mark.parametrize(("drops", "kept"), [((1.0, 1.0, 1.0), True), ((2.0, -1.0, 0.0), False), ((-1.0, -1.0), False)])
def test_losses_of_examples_have_to_fall_by_more_than_chance(drops, kept):
    model, before = network(), torch.full((len(drops),), 5.0)
    losses = iter([before, before - torch.tensor(drops)])
    optimizer = nowcast(model, Drift(), guard=lambda: next(losses))
    train(model, optimizer, range(4))
    after = 5.0 - sum(drops) / len(drops)
    assert optimizer.events == [(4, 5.0, pytest.approx(after), kept, 4, kept, 2)]


def test_losses_of_examples_that_do_not_change_do_not_speak_against():
    model = network()
    train(model, optimizer := nowcast(model, Drift(), guard=lambda: torch.ones(8)), range(4))
    assert optimizer.events[0].accepted


def test_an_average_that_is_not_finite_is_begun_anew():
    model = network()
    optimizer = nowcast(model, AverageDrift())
    train(model, optimizer, range(2))
    optimizer.average.tensors[0][0] = math.nan
    train(model, optimizer, range(2, 8))
    assert [event.accepted for event in optimizer.events] == [False, True]
    assert all(tensor.isfinite().all() for tensor in optimizer.average.tensors)


def test_the_average_for_use_may_be_another_than_the_one_that_is_shown():
    model, drift = network(), AverageDrift()
    optimizer = nowcast(model, drift, ema=0.5)
    train(model, optimizer, range(3))
    assert optimizer.average.decay == 0.5
    predicted = optimizer._tracked.averages.predicted.tensors[1].flatten()
    assert torch.allclose(predicted, average_of(network(), range(3))[24:30])
    assert len(optimizer.state_dict()["nowcast"]["averages"]) == 2


def test_averaged_weights_come_with_statistics_and_leave_none():
    model, looked = network_with_batchnorm(), []
    optimizer = nowcast(model, Drift(), ema=0.5, reestimate=lambda: looked.append(model[1].running_mean.fill_(7.0)))
    train(model, optimizer, range(2))
    before = copy.deepcopy(model)
    with contextlib.suppress(KeyError), optimizer.averaged_weights():
        assert model[1].running_mean.eq(7).all()
        raise KeyError
    assert same_state(model, before)


def test_average_before_the_first_step_is_the_network():
    model = network()
    optimizer, before = nowcast(model, Drift(), ema=0.5), weights(model)
    with optimizer.averaged_weights():
        assert torch.equal(weights(model), before)
    with pytest.raises(InvalidConfig, match="no running average"), nowcast(model, Drift()).averaged_weights():
        pass


@pytest.mark.parametrize(("moments", "kept"), [("keep", True), ("reset", False)])
def test_moments_are_kept_or_reset_when_a_nowcast_stays(moments, kept):
    model = network()
    optimizer = nowcast(model, Drift(), moments=moments)
    train(model, optimizer, range(4))
    assert bool(optimizer.state) is kept
    train(model, optimizer, range(4, 6))


def test_moments_stay_when_a_nowcast_does_not():
    model, losses = network(), iter([1.0, 2.0])
    train(model, optimizer := nowcast(model, Drift(), moments="reset", guard=lambda: next(losses)), range(4))
    assert optimizer.state


def resumable(model, averaging):
    line = get_optimizer_model("Line", averaging=averaging)
    return guarded(model, line, horizons=[4, 8], ema=0.9)


@pytest.mark.parametrize("averaging", [0.0, 0.8])
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_resume_through_a_file_without_pickled_code_is_bit_exact(stop, averaging):
    whole, first, second = network(), network(), network()
    in_one_go, before, after = (resumable(model, averaging) for model in (whole, first, second))
    train(whole, in_one_go, range(14))
    train(first, before, range(stop))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": before.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["model"])
    after.load_state_dict(saved["optimizer"])
    train(second, after, range(stop, 14))
    assert same_state(second, whole)
    assert after.events == in_one_go.events
    assert all(torch.equal(a, b) for a, b in zip(after.average.tensors, in_one_go.average.tensors, strict=True))


def test_what_the_average_is_ahead_is_there_after_resuming():
    model, losses = network(), iter([2.0, 1.0, 1.0, 2.0])
    train(model, before := nowcast(model, AverageDrift(), guard=lambda: next(losses)), range(5))
    after = nowcast(model, AverageDrift(), guard=lambda: 1.0)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    with before.averaged_weights():
        expected = weights(model)
    with after.averaged_weights():
        assert torch.equal(weights(model), expected)
    assert not torch.allclose(expected, torch.cat([tensor.flatten() for tensor in after.average.tensors]))


def test_steps_that_a_grad_scaler_skips_are_not_counted():
    model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = nowcast(model, Drift())
    for step in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_at(model, step)).backward()
        if step == 2:
            model[0].weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.steps == 4
    assert [event.step for event in optimizer.events] == [4]
    assert weights(model).isfinite().all()


def test_gradient_accumulation_counts_steps_of_the_optimizer():
    model = network()
    optimizer = nowcast(model, Drift())
    for step in range(8):
        loss_at(model, step).backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert [event.step for event in optimizer.events] == [4]


def test_a_compiled_network_is_the_network_that_it_was():
    model = network()
    compiled = torch.compile(model, backend="eager")
    optimizer = Nowcast(adam(compiled), compiled, Drift(), every=4, stride=2, max_overhead=None)
    assert optimizer.layout == Layout.of(model)
    train(compiled, optimizer, range(5))
    plain = network()
    train(plain, nowcast(plain, Drift()), range(5))
    assert torch.allclose(weights(model), weights(plain))


@pytest.mark.parametrize("change", ["frozen", "replaced"])
def test_a_network_that_changed_is_refused_at_the_next_nowcast_and_nothing_is_lost(change):
    model = network()
    optimizer = nowcast(model, Drift())
    train(model, optimizer, range(3))
    if change == "frozen":
        model[0].bias.requires_grad_(False)
    else:
        model[0].bias = nn.Parameter(torch.zeros(6))
    with pytest.raises(LayoutMismatch, match=r"Sequential changed after Nowcast was built: 0\.bias \(1 in all\)"):
        train(model, optimizer, range(3, 4))
    assert (optimizer.steps, optimizer.events) == (4, [])
    train(model, optimizer, range(4, 6))
    assert len(optimizer.state_dict()["nowcast"]["history"]) == 3


def test_history_that_is_not_finite_is_dropped_and_training_goes_on(caplog):
    model, drift = network(), Drift()
    optimizer = nowcast(model, drift)
    train(model, optimizer, range(3))
    state = optimizer.state_dict()
    state["nowcast"]["history"][1][5] = math.nan
    optimizer.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        train(model, optimizer, range(3, 8))
    assert [event.accepted for event in optimizer.events] == [False, True]
    assert drift.sizes == [1]
    assert [record.message for record in caplog.records if record.name == Nowcast.__module__] == [
        "the history of weights is not finite and is cleared at step 4; training continues. "
        "Further warnings are suppressed"
    ]


def test_a_guard_that_raises_leaves_everything_as_it_was():
    model, looks = network(), iter([1.0, 0.0])
    optimizer = nowcast(model, Drift(), guard=lambda: 1 / next(looks))
    with pytest.raises(ZeroDivisionError):
        train(model, optimizer, range(4))
    assert same_state(model, trained_alone(4))


def test_state_of_other_weights_of_the_same_number_is_refused():
    model, turned = network(), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1), nn.Linear(1, 2))
    assert Layout.of(turned).size == Layout.of(model).size + 2
    renamed = nn.Sequential(nn.Identity(), network())
    optimizer = nowcast(model, Drift())
    train(model, optimizer, range(2))
    with pytest.raises(LayoutMismatch, match="an optimizer state of other weights"):
        nowcast(renamed, Drift()).load_state_dict(optimizer.state_dict())
    with pytest.raises(LayoutMismatch, match="got 51 weights"):
        nowcast(turned, Drift()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": NowcastPolicy(every=4, stride=2), "horizons": [8]}, "together with every, stride, horizons"),
        ({"horizons": []}, "horizons is empty"),
        ({"horizons": [4, 0]}, "a horizon is 0"),
        ({"ema": 1.0}, "ema is 1.0; expected a decay of 0 or more and below 1"),
        ({"moments": "rescale"}, "moments is 'rescale'; expected 'keep' or 'reset'"),
        ({"min_cosine": 1.5}, "min_cosine is 1.5; expected a cosine from -1 to 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        nowcast(network(), Drift(), **options)


def test_a_file_takes_the_place_of_an_optimizer(tmp_path):
    save_optimizer(get_optimizer_model("Line"), tmp_path / "line.safetensors")
    for source in (tmp_path / "line.safetensors", str(tmp_path / "line.safetensors")):
        model = network()
        optimizer = nowcast(model, source)
        train(model, optimizer, range(4))
        assert type(optimizer.forecaster).__name__ == "Line"
        assert optimizer.events[0].accepted


def test_the_built_in_optimizer_is_loaded_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(nowcast_sources.resources, "files", lambda package: tmp_path)
    with pytest.raises(UnknownName, match="this installation of metaopt has no built-in optimizer"):
        nowcast(network(), "builtin")
    (tmp_path / "builtin").mkdir()
    save_optimizer(get_optimizer_model("Line"), tmp_path / "builtin" / "optimizer.safetensors")
    assert type(metaopt.load_optimizer("builtin")).__name__ == "Line"
