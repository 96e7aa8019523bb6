"""Associative memories against their equations: rules, momentum, forgetting, pieces, and writes that are not finite."""

from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaopt.core.errors import InvalidConfig, LayoutMismatch
from metaopt.nested import LinearMemory, MemoryState, Rates


def pairs(batch=2, tokens=7, keys=4, values=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(batch, tokens, width, generator=generator, dtype=torch.float64) for width in (keys, values)]
    return torch.nn.functional.normalize(drawn[0], dim=-1), drawn[1]


def rates(batch=2, tokens=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Rates(*torch.rand(3, batch, tokens, generator=generator, dtype=torch.float64).mul(0.5).unbind())


@pytest.mark.parametrize("rule", ["delta", "hebbian"])
def test_a_write_is_a_step_of_gradient_descent_with_momentum_and_forgetting(rule):
    memory, (keys, values), given_rates = LinearMemory(4, 3, rule), pairs(), rates()
    state = memory.write(memory.reset(2), keys, values, given_rates)
    for sequence in range(2):
        matrix, momentum = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
        for token in range(7):
            key, value = keys[sequence, token], values[sequence, token]
            weights = matrix.clone().requires_grad_()
            loss = (weights @ key - value).square().sum() if rule == "delta" else -2 * (weights @ key) @ value
            (gradient,) = torch.autograd.grad(loss, weights)
            lr, kept, forgotten = (rate[sequence, token] for rate in given_rates)
            momentum = kept * momentum - lr * gradient
            matrix = (1 - forgotten) * matrix + momentum
        torch.testing.assert_close(state.matrix[sequence], matrix)
        torch.testing.assert_close(state.momentum[sequence], momentum)


@given(st.integers(0, 7), st.sampled_from(["delta", "hebbian"]))
def test_a_whole_sequence_equals_its_pieces(cut, rule):
    memory, (keys, values), given_rates = LinearMemory(4, 3, rule), pairs(), rates()
    whole = memory.write(memory.reset(2), keys, values, given_rates)
    state = memory.reset(2)
    for part in (slice(0, cut), slice(cut, 7)):
        state = memory.write(state, keys[:, part], values[:, part], Rates(*(rate[:, part] for rate in given_rates)))
    torch.testing.assert_close(state, whole, rtol=0, atol=0)


def test_sequences_of_a_batch_do_not_share_what_they_store():
    memory, (keys, values) = LinearMemory(4, 3), pairs()
    both = memory.write(memory.reset(2), keys, values)
    alone = memory.write(memory.reset(1), keys[1:], values[1:])
    torch.testing.assert_close(both.matrix[1:], alone.matrix)


def test_the_delta_rule_replaces_a_value_where_the_hebbian_rule_adds_it():
    key, old, new = torch.eye(4)[None, :1], torch.ones(1, 1, 3), torch.full((1, 1, 3), 5.0)
    for rule, expected in (("delta", new), ("hebbian", old + new)):
        memory = LinearMemory(4, 3, rule)
        state = memory.write(memory.write(memory.reset(1), key, old), key, new)
        torch.testing.assert_close(memory.read(state, key), expected)


def test_surprise_is_the_norm_of_the_gradient_and_falls_when_a_pair_is_stored():
    memory, (keys, values) = LinearMemory(4, 3), pairs(batch=1, tokens=1)
    state = memory.reset(1)
    weights = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((weights @ keys[0, 0] - values[0, 0]).square().sum(), weights)
    torch.testing.assert_close(memory.surprise(state, keys, values)[0, 0], gradient.norm())
    assert memory.surprise(memory.write(state, keys, values), keys, values).item() < 1e-6


def test_a_write_that_is_not_finite_is_left_out_in_its_sequence_alone():
    memory, (keys, values) = LinearMemory(4, 3), pairs()
    spoilt = values.clone()
    spoilt[0, 3, 1] = float("nan")
    kept = [0, 1, 2, 4, 5, 6]
    state = memory.write(memory.reset(2), keys, spoilt, Rates(0.3, 0.2, 0.1))
    without = memory.write(memory.reset(2), keys[:, kept], values[:, kept], Rates(0.3, 0.2, 0.1))
    whole = memory.write(memory.reset(2), keys, values, Rates(0.3, 0.2, 0.1))
    torch.testing.assert_close(state.matrix[0], without.matrix[0])
    torch.testing.assert_close(state.matrix[1], whole.matrix[1])


def test_a_pair_that_is_not_finite_leaves_the_gradients_of_the_others_finite():
    memory, (keys, values) = LinearMemory(4, 3), pairs()
    values[0, 3, 1] = float("nan")
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    state = memory.write(memory.reset(2), keys.requires_grad_(), values, Rates(lr.expand(2, 7)))
    memory.read(state, keys).square().sum().backward()
    assert lr.grad.isfinite()
    assert keys.grad.isfinite().all()


def test_a_write_that_overflows_leaves_the_gradients_of_the_others_finite():
    memory, (keys, values), rate = LinearMemory(4, 3), pairs(), torch.full((2, 7), 0.3, dtype=torch.float64)
    keys[0, 3], given = 1e300, MemoryState(*torch.randn(2, 2, 3, 4, dtype=torch.float64).unbind())
    inputs = [part.requires_grad_() for part in (keys, values, rate, *given)]
    state = memory.write(given, keys, values, Rates(rate, rate, rate))
    gradients = torch.autograd.grad(memory.read(state, torch.randn_like(keys)).sum(), inputs)
    kept = [0, 1, 2, 4, 5, 6]
    others = Rates(*[rate[:, kept]] * 3)
    torch.testing.assert_close(state.matrix[0], memory.write(given, keys[:, kept], values[:, kept], others).matrix[0])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][0, 3].any()


def test_a_write_without_rates_takes_those_of_the_memory():
    (keys, values), given_rates = pairs(), Rates(0.3, 0.2, 0.1)
    own, given = LinearMemory(4, 3, rates=given_rates), LinearMemory(4, 3)
    expected = given.write(given.reset(2), keys, values, given_rates)
    torch.testing.assert_close(own.write(own.reset(2), keys, values), expected)


def test_gradients_flow_through_a_write_to_keys_values_and_rates():
    memory, (keys, values), given_rates = LinearMemory(4, 3), pairs(tokens=3), rates(tokens=3)
    inputs = [keys.requires_grad_(), values.requires_grad_(), *(rate.requires_grad_() for rate in given_rates)]

    def read_after_write(keys, values, *given):
        return memory.read(memory.write(memory.reset(2), keys, values, Rates(*given)), keys)

    assert torch.autograd.gradcheck(read_after_write, inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearMemory(0, 3), "keys of width 0"),
        (lambda: LinearMemory(4, 2.5), "values of width 2.5; expected whole numbers"),
        (lambda: LinearMemory(4, 3, "oja"), "rule is 'oja'; expected delta or hebbian"),
        (lambda: LinearMemory(4, 3, rates=0.5), "rates is 0.5; expected Rates"),
    ],
)
def test_invalid_memories_are_refused(call, message):
    with pytest.raises(InvalidConfig, match=message):
        call()


@pytest.mark.parametrize("shapes", [((2, 7, 5), (2, 7, 3)), ((2, 7, 4), (2, 6, 3)), ((2, 7, 4), (2, 7, 4))])
def test_widths_and_tokens_that_do_not_fit_are_refused(shapes):
    memory = LinearMemory(4, 3)
    with pytest.raises(LayoutMismatch, match=r"expected \[batch, tokens, 4\] and \[batch, tokens, 3\]"):
        memory.write(memory.reset(2), *map(torch.zeros, shapes))


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 7), (7, 4)])
def test_queries_of_another_width_are_refused(shape):
    memory = LinearMemory(4, 3)
    with pytest.raises(LayoutMismatch, match=r"expected \[batch, tokens, 4\]"):
        memory.read(memory.reset(2), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 7), (2, 6), (1, 2, 7)])
def test_rates_of_other_numbers_of_tokens_are_refused(shape):
    memory = LinearMemory(4, 3)
    with pytest.raises(LayoutMismatch, match=r"momentum of shape .*; expected one per token, \(2, 7\)"):
        memory.write(memory.reset(2), *pairs(), Rates(momentum=torch.zeros(shape)))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 7), (2, 1)])
def test_a_rate_is_expanded_to_all_tokens(shape):
    memory, drawn = LinearMemory(4, 3), pairs()
    expanded = memory.write(memory.reset(2), *drawn, Rates(torch.full((2, 7), 0.3)))
    torch.testing.assert_close(memory.write(memory.reset(2), *drawn, Rates(torch.full(shape, 0.3))), expanded)


@pytest.mark.parametrize("rates", [0.5, (0.5, 0.0, 0.0), {"lr": 0.5}])
def test_a_write_with_rates_of_another_type_is_refused(rates):
    memory = LinearMemory(4, 3)
    with pytest.raises(InvalidConfig, match=r"expected Rates, such as Rates\(lr=0.5\)"):
        memory.write(memory.reset(2), *pairs(), rates)


def test_the_given_state_does_not_change():
    memory, (keys, values) = LinearMemory(4, 3), pairs()
    state = memory.write(memory.reset(2), keys, values)
    copied = MemoryState(*(part.clone() for part in state))
    memory.write(state, keys, values)
    torch.testing.assert_close(state, copied, rtol=0, atol=0)


@pytest.mark.parametrize("state", [LinearMemory(4, 3).reset(1), LinearMemory(4, 7).reset(8), (), None])
def test_a_state_of_other_sequences_or_widths_is_not_read(state):
    with pytest.raises(LayoutMismatch, match="of `reset` of this memory"):
        LinearMemory(4, 3).read(state, torch.randn(8, 2, 4))


@pytest.mark.parametrize("rates", [Rates(-1.0), Rates(momentum=5.0), Rates(forget=-0.1), Rates(nan), Rates("a")])
def test_rates_out_of_their_range_are_refused(rates):
    keys, values = torch.randn(2, 3, 4), torch.randn(2, 3, 3)
    with pytest.raises(InvalidConfig, match="momentum and forget from 0 to 1"):
        LinearMemory(4, 3, rates=rates)
    with pytest.raises(InvalidConfig, match="momentum and forget from 0 to 1"):
        LinearMemory(4, 3).write(LinearMemory(4, 3).reset(2), keys, values, rates)
