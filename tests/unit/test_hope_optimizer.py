"""HopeOptimizer: its formula, what it learns from a training, and its state in checkpoints of `Nowcast`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from metaopt.core.errors import CheckpointError, InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Slopes, slopes_coefficients
from metaopt.generative.outcomes import Origins, Outcomes, needed_corrections
from metaopt.nested import LinearMemory, Rates
from metaopt.nowcast.optimizer import Nowcast
from metaopt.weights.layout import Layout, WeightTensor
from metaopt.weights.snapshots import Snapshots

from ..small_training import adam, network, train

LAYOUT = Layout((WeightTensor("w", (5, 3), "float32"), WeightTensor("b", (4,), "float32")))


def build(**options):
    """An optimizer whose parameters all differ from their initial values."""
    torch.manual_seed(1)
    optimizer = get_optimizer_model("HopeOptimizer", **{"dim": 8, "keys": 4, "history": 9, **options})
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return optimizer.eval()


def a_training(snapshots, seed=0, batch=2):
    """Weights that approach others along a curve, at uneven times."""
    random = torch.Generator().manual_seed(seed)
    times = torch.randint(5, 30, (batch, snapshots), generator=random).cumsum(1).float()
    start, end, waves = torch.randn(3, batch, 1, LAYOUT.size, generator=random)
    decay = torch.exp(-times / 100).unsqueeze(-1)
    return end + (start - end) * decay + 0.1 * waves * torch.sin(times / 20).unsqueeze(-1), times


def observed(optimizer, history, times, stop=None):
    """The state after the snapshots of one training, one by one."""
    state = optimizer.initial_state(LAYOUT)
    for count in range(1, (stop or len(history)) + 1):
        recent = slice(max(0, count - optimizer.history), count)
        state = optimizer.observe(state, Snapshots.of(history[recent]), times[recent], LAYOUT)
    return state


def readable_forecast(optimizer, history, times, horizon):
    """The formula of the class for one training, tensor by tensor and pair by pair."""
    ages, count = (4, 2, 1), len(history)
    forecasts = []
    known = {}
    for target in range(count):
        for age in ages:
            if target - age > 0:
                pair = Outcomes(Snapshots.of(history[None, : target + 1]), times[None, : target + 1], LAYOUT, ages)
                origins, along = pair.past([target])
                of_pair = [each for each in ages if target >= each].index(age)
                one = Origins(*(field[:, of_pair : of_pair + 1] for field in origins))
                known[target, -age] = (one, along[:, of_pair : of_pair + 1])
    for number, (weights, past) in enumerate(zip(LAYOUT.split(history[-1]), LAYOUT.split(history), strict=True)):
        memory = LinearMemory(4, len(ages))
        state = memory.reset(1)
        for _, (origins, along) in sorted(known.items()):
            encoded = optimizer._encode(origins, LAYOUT)
            value = needed_corrections(origins, along, origins.slopes.unsqueeze(2) + optimizer.coefficients(encoded))
            key = functional.normalize(optimizer.keys(encoded), dim=-1)
            lr, forget = optimizer.rates(encoded).sigmoid().unbind(-1)
            rates = Rates(lr[:, :, number] / 2, 0.0, forget[:, :, number])
            state = memory.write(state, key[:, :, number], value[:, :, number], rates)
        present = Outcomes(Snapshots.of(history[None]), times[None], LAYOUT, ages).present(times[None, -1:] + horizon)
        encoded = optimizer._encode(present, LAYOUT)[0, 0, number]
        recalled = memory.read(state, functional.normalize(optimizer.keys(encoded), dim=-1)[None, None])[0, 0]
        moved = weights.clone()
        before = [max(count - 1 - age, 0) if count > age else count - 1 for age in ages]
        spans = times[-1] - times[before]
        slopes = slopes_coefficients(times[[*before, count - 1]][None], torch.tensor([horizon]))[0]
        for k, index in enumerate(before):
            damped = horizon / (horizon + spans[k]) if spans[k] > 0 else 0.0
            correction = optimizer.coefficients(encoded)[k] + recalled[k]
            moved += (slopes[k] + damped * correction) * (weights - past[index])
        forecasts.append(moved)
    return LAYOUT.join(forecasts)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
def test_the_forecast_is_that_of_the_formula_with_a_linear_memory(count):
    optimizer, (history, times) = build(), a_training(count)
    predicted = optimizer.predict(history, times, times[:, -1] + 40, LAYOUT)
    with torch.no_grad():
        for row in range(2):
            expected = readable_forecast(optimizer, history[row], times[row], 40.0)
            torch.testing.assert_close(predicted[row], expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=30)
@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_snapshots_one_by_one_give_the_forecast_of_the_whole_history(count, seed):
    optimizer, (history, times) = build(), a_training(count, seed, batch=1)
    with torch.no_grad():
        state = observed(optimizer, history[0], times[0])
    ends = times[0, -1] + torch.tensor([20.0, 90.0])
    whole = optimizer.forecast(Snapshots.of(history[0]), times[0], ends, LAYOUT)
    in_pieces = optimizer.forecast(Snapshots.of(history[0]), times[0], ends, LAYOUT, state)
    torch.testing.assert_close(in_pieces, whole, rtol=1e-4, atol=1e-4)


def test_before_the_first_outcome_the_untrained_optimizer_is_slopes():
    optimizer, (history, times) = get_optimizer_model("HopeOptimizer"), a_training(2)
    expected = Slopes().predict(history, times, times[:, -1] + 40, LAYOUT)
    torch.testing.assert_close(optimizer.predict(history, times, times[:, -1] + 40, LAYOUT), expected)


def test_the_untrained_optimizer_learns_how_the_training_at_hand_differs_from_slopes():
    torch.manual_seed(0)
    optimizer, (history, times) = get_optimizer_model("HopeOptimizer"), a_training(21, batch=8)
    past, t_past, t_end = history[:, :18], times[:, :18], times[:, 20]
    errors = [
        (each.predict(past, t_past, t_end, LAYOUT) - history[:, 20]).square().sum() for each in (optimizer, Slopes())
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_state_that_has_seen_more_than_the_history_changes_the_forecast():
    optimizer, (history, times) = build(), a_training(14, batch=1)
    with torch.no_grad():
        state = observed(optimizer, history[0], times[0])
    recent, t_recent, end = Snapshots.of(history[0, -9:]), times[0, -9:], times[0, -1:] + 40
    with_state = optimizer.forecast(recent, t_recent, end, LAYOUT, state)
    assert not with_state.allclose(optimizer.forecast(recent, t_recent, end, LAYOUT), atol=1e-5)
    empty = optimizer.forecast(recent, t_recent, end, LAYOUT, optimizer.initial_state(LAYOUT))
    assert not with_state.allclose(empty, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_an_outcome_that_is_not_finite_is_not_stored(value):
    optimizer, (history, times) = build(), a_training(6, batch=1)
    with torch.no_grad():
        before = observed(optimizer, history[0], times[0], stop=5)
        history[0, 5, :15] = value
        after = observed(optimizer, history[0], times[0])
    assert after[0].isfinite().all()
    assert torch.equal(after[0][0], before[0][0])


def test_a_tensor_that_is_not_finite_does_not_keep_others_from_learning():
    optimizer, (history, times) = build(), a_training(6, batch=1)
    with torch.no_grad():
        before = observed(optimizer, history[0], times[0], stop=5)
        history[0, 5, :3] = float("nan")
        after = observed(optimizer, history[0], times[0])
    assert torch.equal(after[0][0], before[0][0])
    assert not torch.equal(after[0][1], before[0][1])
    assert after[0].isfinite().all()


def test_observing_does_not_change_the_given_state():
    optimizer, (history, times) = build(), a_training(5, batch=1)
    with torch.no_grad():
        state = observed(optimizer, history[0], times[0], stop=4)
        copy = state[0].clone()
        optimizer.observe(state, Snapshots.of(history[0]), times[0], LAYOUT)
    assert torch.equal(state[0], copy)


def test_weights_that_do_not_move_stay():
    history, times = torch.ones(2, 7, LAYOUT.size), 20.0 * torch.arange(7).expand(2, -1)
    assert build().predict(history, times, times[:, -1] + 40, LAYOUT).equal(history[:, -1])


def test_large_tensors_are_forecast_in_parts(monkeypatch):
    optimizer, (history, times) = build(), a_training(7)
    whole = optimizer.predict(history, times, times[:, -1] + 40, LAYOUT)
    monkeypatch.setattr("metaopt.generative.hope._SPAN", 4)
    torch.testing.assert_close(optimizer.predict(history, times, times[:, -1] + 40, LAYOUT), whole)


@pytest.mark.parametrize("options", [{"history": 2}, {"dim": 0}, {"keys": 0}])
def test_an_invalid_size_is_an_error(options):
    with pytest.raises(InvalidConfig, match=next(iter(options))):
        build(**options)


def wrapped(model, **options):
    return Nowcast(adam(model), model, build(**options), every=4, stride=2, horizons=4, max_overhead=None)


@pytest.mark.parametrize("stop", [1, 5, 13])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(stop, tmp_path):
    model = network()
    optimizer = wrapped(model)
    train(model, optimizer, range(stop))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    train(model, optimizer, range(stop, 30))
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = network()
    resumed.load_state_dict(loaded["model"])
    again = wrapped(resumed)
    again.load_state_dict(loaded["optimizer"])
    train(resumed, again, range(stop, 30))
    for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(
        again.state_dict()["nowcast"]["forecaster"][0], optimizer.state_dict()["nowcast"]["forecaster"][0]
    )


def test_nowcasts_use_what_was_observed_before_the_history():
    model = network()
    optimizer = wrapped(model)
    train(model, optimizer, range(30))
    with_state = optimizer.predict()
    state = optimizer.state_dict()
    del state["nowcast"]["forecaster"]
    other = network()
    again = wrapped(other)
    again.load_state_dict(state)
    assert not torch.equal(again.predict(), with_state)


@pytest.mark.parametrize("options", [{"keys": 5}, {"dim": 9}, {"averaging": 0.5}])
def test_the_state_of_another_forecaster_is_refused_and_changes_nothing(options):
    model = network()
    optimizer = wrapped(model, **options)
    train(model, optimizer, range(9))
    other = wrapped(network())
    with pytest.raises(CheckpointError, match="what another forecaster has learned"):
        other.load_state_dict(optimizer.state_dict())
    assert other.steps == 0


@pytest.mark.parametrize("damage", [lambda each: each.fill_(float("nan")), lambda each: each.resize_(2, 3, 4)])
def test_a_damaged_state_is_refused(damage):
    model = network()
    optimizer = wrapped(model)
    train(model, optimizer, range(9))
    state = optimizer.state_dict()
    damage(state["nowcast"]["forecaster"][0])
    with pytest.raises(CheckpointError, match=r"expected finite numbers of shapes \[\(4, 3, 4\)\]"):
        wrapped(network()).load_state_dict(state)


def test_a_forecaster_that_does_not_learn_goes_on_without_the_state_of_one_that_does():
    model = network()
    optimizer = wrapped(model)
    train(model, optimizer, range(9))
    plain = Nowcast(adam(model), model, Slopes(), every=4, stride=2, horizons=4, max_overhead=None)
    plain.load_state_dict(optimizer.state_dict())
    train(model, plain, range(9, 20))
    assert plain.steps == 20


def test_a_state_of_a_forecaster_that_does_not_learn_can_be_loaded():
    model = network()
    plain = Nowcast(adam(model), model, Slopes(), every=4, stride=2, horizons=4, max_overhead=None)
    train(model, plain, range(9))
    optimizer = wrapped(model)
    optimizer.load_state_dict(plain.state_dict())
    train(model, optimizer, range(9, 20))
    assert optimizer.steps == 20
