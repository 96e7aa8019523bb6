"""BatchNorm under `Nowcast`: statistics from the last inputs of the training, for weights that a nowcast changed."""

import copy

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import guard_from, reestimate_batchnorm
from metaopt.nowcast.integrations.isolation import ReplayOnCopies
from metaopt.nowcast.optimizer import Nowcast

from ..small_training import (
    HELD_OUT,
    adam,
    batch,
    loss_at,
    network,
    network_with_batchnorm,
    nowcast,
    same_state,
    train,
    trained_alone,
)


def statistics(model):
    return [values.clone() for name, values in model.state_dict().items() if "running" in name]


def same_statistics(model, other):
    return all(map(torch.allclose, statistics(model), statistics(other)))


def test_weights_that_a_nowcast_moved_get_statistics_from_the_last_inputs():
    model = network_with_batchnorm()
    optimizer = nowcast(model)
    train(model, optimizer, range(4))
    assert optimizer.events[0].followed
    expected = copy.deepcopy(model)
    reestimate_batchnorm(expected, [batch(step) for step in range(4)])
    assert same_statistics(model, expected)
    assert model[1].momentum == 0.1
    assert all(module.training for module in model.modules())
    train(model, optimizer, range(4, 12))
    assert len(optimizer._passes.recent) == 8


def test_statistics_without_a_nowcast_and_of_one_that_moves_nothing_are_those_of_the_training():
    for forecaster, guard in (("Hold", None), ("Hold", lambda: 1.0), ("Line", iter(range(99)).__next__)):
        model = network_with_batchnorm()
        wrapped = (lambda guard=guard: float(guard())) if guard else None
        train(model, optimizer := nowcast(model, forecaster, guard=wrapped), range(9))
        assert optimizer.events[0].accepted is (forecaster == "Hold")
        assert same_state(model, trained_alone(9, network_with_batchnorm))


def test_the_average_has_its_own_statistics():
    model = network_with_batchnorm()
    optimizer = nowcast(model, "Hold", ema=0.9)
    train(model, optimizer, range(7))
    before = copy.deepcopy(model)
    model.eval()  # for the evaluation
    with optimizer.averaged_weights():
        expected = copy.deepcopy(model)
        reestimate_batchnorm(expected, [batch(step) for step in range(7)])
        assert same_statistics(model, expected)
        assert not same_statistics(model, before)
        assert not any(module.training for module in model.modules())
    assert same_state(model, before)


def test_a_guard_compares_proposals_with_statistics_of_their_own():
    model, seen = network_with_batchnorm(), []

    def guard():
        model.eval()
        seen.append(statistics(model))
        return loss_at(model, HELD_OUT)

    train(model, nowcast(model, horizons=[2, 40], guard=guard, min_cosine=-1), range(8))
    assert len(seen) >= 3
    assert not any(map(torch.equal, seen[-1], seen[-2]))


def test_frozen_layers_keep_their_statistics_and_other_buffers_stay():
    frozen, spectral = nn.BatchNorm1d(6), nn.utils.spectral_norm(nn.Linear(6, 6))
    model = network(nn.BatchNorm1d(6), frozen, spectral)
    optimizer = nowcast(model)
    model.train()
    frozen.eval()
    for step in range(4):
        loss_at(model, step).backward()
        before = spectral.weight_u.clone()
        optimizer.step()
        optimizer.zero_grad()
    assert frozen.running_mean.eq(0).all()
    assert frozen.num_batches_tracked == 0
    assert not frozen.training
    assert model[1].num_batches_tracked == 4
    assert torch.equal(spectral.weight_u, before)


def test_nothing_is_kept_without_batchnorm_or_with_a_function_of_ones_own_or_if_not_wished():
    for model, options in (
        (network(), {}),
        (network_with_batchnorm(), {"reestimate": lambda: None}),
        (network_with_batchnorm(), {"batchnorm_batches": 0}),
    ):
        optimizer = nowcast(model, **options)
        assert not optimizer._passes.recent.maxlen
        assert not model._forward_pre_hooks
    for bad in (-1, 2.0, True):
        with pytest.raises(InvalidConfig, match=r"batchnorm_batches is .*; expected a whole number"):
            nowcast(network_with_batchnorm(), batchnorm_batches=bad)


def test_gradient_accumulation_keeps_the_last_inputs_before_each_step():
    model = network_with_batchnorm()
    optimizer = nowcast(model)
    for step in range(8):
        loss_at(model, step).backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    expected = copy.deepcopy(model)
    reestimate_batchnorm(expected, [batch(step) for step in range(1, 8, 2)])
    assert same_statistics(model, expected)


def test_statistics_under_autocast_are_those_of_its_precision():
    model, seen = network_with_batchnorm(), []
    optimizer = nowcast(model)
    model[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].dtype))
    for step in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_at(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(seen) == 8
    assert set(seen) == {torch.bfloat16}


def told(caplog):
    return [record.message for record in caplog.records if "running statistics" in record.message]


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network_with_batchnorm()

    def forward(self, inputs):
        return self.inner(inputs.mul_(2))


class OfObjects(InPlace):
    def forward(self, inputs):
        return self.inner(inputs.values)


class Object:
    def __init__(self, values):
        self.values = values


class FailsLater(InPlace):
    def forward(self, inputs):
        if not torch.is_grad_enabled() and self.training:
            raise KeyError("no gradients")
        return self.inner(inputs)


@pytest.mark.parametrize(
    ("build", "wrap", "reason"),
    [
        (InPlace, lambda inputs: inputs, "changes its inputs in place"),
        (OfObjects, Object, "the inputs of the network are not tensors"),
        (FailsLater, lambda inputs: inputs, "a forward pass with kept inputs raised KeyError: 'no gradients'"),
    ],
)
def test_where_statistics_cannot_be_estimated_they_stay_and_a_warning_says_why(build, wrap, reason, caplog):
    torch.manual_seed(0)
    model = build()
    optimizer, before = nowcast(model), None
    for step in range(8):
        inputs, labels = batch(step)
        nn.functional.cross_entropy(model(wrap(inputs)), labels).backward()
        before = statistics(model)
        optimizer.step()
        optimizer.zero_grad()
    assert all(event.followed for event in optimizer.events)
    assert all(map(torch.equal, statistics(model), before))
    assert len(told(caplog)) == 1
    assert reason in told(caplog)[0]
    assert "Give reestimate=" in told(caplog)[0]


def test_a_training_that_never_calls_the_network_is_told(caplog):
    model = network_with_batchnorm()
    inner = nn.Sequential(*model)
    train(inner, nowcast(model), range(4))
    assert "no forward pass of the network in training mode was seen" in told(caplog)[0]


@pytest.mark.parametrize("compiles_itself", [False, True])
def test_compiled_networks(compiles_itself):
    from torch._dynamo.testing import CompileCounter

    counter, plain = CompileCounter(), network_with_batchnorm()
    train(plain, nowcast(plain), range(9))
    model = network_with_batchnorm()
    if compiles_itself:
        model.compile(backend=counter, fullgraph=True)
    compiled = model if compiles_itself else torch.compile(model, backend=counter, fullgraph=True)
    train(compiled, nowcast(compiled, base=adam(model)), range(9))
    assert same_statistics(model, plain)
    assert counter.frame_count == 1


def test_a_compiled_network_keeps_the_hook_in_steps_in_which_nothing_is_noted():
    model = network_with_batchnorm()
    compiled = torch.compile(model, backend="eager")
    optimizer = nowcast(compiled, every=20, stride=20, max_overhead=1e6)
    optimizer._record.budget.averaged_every = 5
    train(compiled, optimizer, range(19))
    assert len(model._forward_pre_hooks) == 1
    assert len(optimizer._passes.recent) == 3


def test_on_copies_nothing_else_reaches_the_network():
    class OnCopies(Nowcast):
        _replay = ReplayOnCopies()

    class Counts(nn.Module):
        calls = 0

        def forward(self, inputs):
            self.calls += 1
            return inputs

    models = []
    for kind in (OnCopies, Nowcast):
        model, seen = network(nn.BatchNorm1d(6), Counts()), []
        model.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        line = get_optimizer_model("Line")
        train(model, kind(adam(model), model, line, every=4, stride=2, horizons=4, max_overhead=None), range(4))
        models.append((model, model[2].calls, len(seen)))
    (one, calls, seen), (other, *_) = models
    assert (calls, seen) == (4, 4)
    assert same_state(one, other)


# Which weights to keep


def test_the_guard_chooses_the_weights_to_keep():
    for better in ("raw", "averaged"):
        model = network_with_batchnorm()
        losses = iter([1.0, 1.0, *([1.0, 2.0] if better == "raw" else [2.0, 1.0])])
        optimizer = nowcast(model, "Hold", ema=0.9, guard=lambda losses=losses: next(losses))
        train(model, optimizer, range(6))
        before = copy.deepcopy(model)
        with optimizer.averaged_weights():
            averaged = copy.deepcopy(model)
        with optimizer.best_weights() as best:
            assert best.kind == better
            assert best.model is model
            assert {best.loss_raw, best.loss_averaged} == {1.0, 2.0}
            assert same_state(model, before if better == "raw" else averaged)
        assert same_state(model, before)


def test_the_choice_is_measured_on_other_examples_than_a_nowcast():
    model, seen = network(), []

    def loss(outputs, labels):
        seen.append(labels)
        return nn.functional.cross_entropy(outputs, labels, reduction="none")

    optimizer = nowcast(model, "Hold", ema=0.9, guard=guard_from(batch(HELD_OUT, 400), loss, examples=32))
    train(model, optimizer, range(4))
    with optimizer.best_weights() as best:
        assert best.loss_raw != optimizer.events[0].loss_before
    assert not torch.equal(seen[0], seen[-1])
    assert torch.equal(seen[-1], seen[-2])


def test_best_weights_needs_a_guard_and_an_average():
    unguarded = nowcast(network(), ema=0.9)
    with pytest.raises(InvalidConfig, match=r"there is none\. Give Nowcast"), unguarded.best_weights():
        pass
    unaveraged = nowcast(network(), guard=lambda: 1.0)
    with pytest.raises(InvalidConfig, match="no running average"), unaveraged.best_weights():
        pass
