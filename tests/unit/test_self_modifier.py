"""SelfModifier against a loop over its equations: chunks, pieces, values, bounds, safeguards, and invalid input."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import normalize, silu

from metaopt.core.errors import InvalidConfig, LayoutMismatch
from metaopt.nested import ModifierState, Safeguards, SelfModifier
from metaopt.nested.delta_recurrence import DeltaRecurrence
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

ALL = ("key", "value", "rate", "decay", "memory")


def modifier(width=6, spread=0.3, **options):
    """A layer whose memories are all different, so that no two of them can be mistaken for each other."""
    torch.manual_seed(0)
    layer = SelfModifier(width, **options).double()
    with torch.no_grad():
        for layers in layer.initial.values():
            for weights in layers:
                weights.add_(spread * torch.randn_like(weights))
        layer.biases["decay"].sub_(3.0)  # so that decays matter within a few tokens
    return layer


def tokens(batch=2, count=9, width=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, width, generator=generator, dtype=torch.float64)


def recall(layers, inputs, offsets=(0.0, 0.0)):
    """M(z); offsets are added to the output of each layer, so that a gradient can be taken with respect to it."""
    if len(layers) == 1:
        return layers[0] @ inputs + offsets[0]
    outputs = layers[1] @ silu(layers[0] @ inputs + offsets[0]) + offsets[1]
    return inputs + outputs if len(outputs) == len(inputs) else outputs


def written(layers, start, base, key, own, alpha, eta, layer):
    """The equation of one memory and one token, layer by layer."""
    regression = layer.objective == "regression"

    def loss(offsets):
        recalled = recall(start, key, offsets)
        return 0.5 * (recalled - own).square().sum() if regression else -recalled @ own

    gradients = torch.func.grad(loss)([torch.zeros(len(part), dtype=key.dtype) for part in start])
    inputs = [key] if len(start) == 1 else [key, silu(start[0] @ key)]
    factor = 2 if regression else 1
    outer = [factor * torch.outer(gradient, part) for gradient, part in zip(gradients, inputs, strict=True)]
    error = factor * (recall(start, key) - own if regression else -own)
    length = sum(part.square().sum() for part in outer)
    if len(start) == 2:
        scale = min(1.0, error.square().sum() / length)
        outer, length = [scale * part for part in outer], scale**2 * length
    limit = layer.safeguards.max_grad_norm
    scale = 1.0 if limit is None else min(1.0, limit / length.sqrt())
    new = []
    for now, before, origin, part, step in zip(layers, start, base, inputs, outer, strict=True):
        square = torch.outer(normalize(part, dim=0), normalize(part, dim=0))
        recalled = before @ square if regression else 0.0
        decayed = alpha * (now - origin) + origin - eta * now @ square
        new.append(decayed + eta * (recalled - scale * step))
    return new


def by_hand(layer, inputs):
    """Outputs and last memories of one sequence and one head, token after token."""
    initial = {name: [part[0] for part in layer.initial[name]] for name in ALL}
    base = {name: [(layer.forget_to == "initial") * part for part in parts] for name, parts in initial.items()}
    now, average, outputs, kept = dict(initial), dict(initial), [], layer.safeguards.average
    changing = ALL if layer.adaptive else ("memory",)
    for number, token in enumerate(inputs):
        if number % layer.chunk == 0:
            if number and kept is not None:
                average = {
                    name: [kept * old + (1 - kept) * new for old, new in zip(average[name], now[name], strict=True)]
                    for name in ALL
                }
            start = dict(now)
            source = start if kept is None else average
        query = normalize(layer.query.weight @ token, dim=0)
        outputs.append(recall(now["memory"] if kept is None else source["memory"], query))
        key, value = normalize(recall(source["key"], token), dim=0), recall(source["value"], token)
        alpha = torch.sigmoid(layer.biases["decay"][0, 0, 0] + recall(source["decay"], token)[0])
        eta = alpha / 2 * torch.sigmoid(layer.biases["rate"][0, 0, 0] + recall(source["rate"], token)[0])
        for name in changing:
            own = recall(source[name], value) if layer.adaptive else value
            own = own / (own.square().mean().sqrt() / layer.safeguards.max_value).clamp(min=1)
            now[name] = written(now[name], start[name], base[name], key, own, alpha, eta, layer)
    return torch.stack(outputs), {name: now[name] for name in changing}


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 10),
    st.lists(st.integers(0, 9), max_size=3),
    st.sampled_from([1, 2]),
    st.sampled_from(["regression", "dot"]),
    st.sampled_from(["initial", "zero"]),
    st.booleans(),
    st.sampled_from([None, 0.6]),
    st.sampled_from([None, 0.5]),
    st.sampled_from([0, 1]),
)
def test_a_chunked_sequence_in_any_pieces_equals_a_loop_over_tokens(
    chunk, cuts, depth, objective, forget_to, adaptive, average, limit, sequence
):
    safeguards = Safeguards(max_value=0.7, average=average, max_grad_norm=limit)
    layer = modifier(
        chunk=chunk, depth=depth, objective=objective, forget_to=forget_to, adaptive=adaptive, safeguards=safeguards
    )
    inputs, outputs, state = tokens(), [], None
    with torch.no_grad():
        for start, end in pairwise([0, *sorted(cuts), 9]):
            part, state = layer(inputs[:, start:end], state)
            outputs.append(part)
        expected, memories = by_hand(layer, inputs[sequence])
        torch.testing.assert_close(torch.cat(outputs, 1)[sequence], expected)
        assert set(state.now) == set(memories)
        for name, layers in memories.items():
            for weights, wanted in zip(state.now[name], layers, strict=True):
                torch.testing.assert_close(weights[sequence, 0], wanted)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_chunk_of_one_token_is_gradient_descent_with_decay(depth):
    layer, inputs = modifier(depth=depth, spread=0.1, chunk=1, forget_to="zero", adaptive=False), tokens(1, 1)
    layer.initial["memory"][0].data.mul_(0.5)  # so that the gradient is short enough for a full step
    _, state = layer(inputs)
    layers = [part[0].detach().requires_grad_() for part in layer.initial["memory"]]
    token = inputs[0, 0]
    key, value, rate, decay = (recall([part[0] for part in layer.initial[name]], token) for name in ALL[:4])
    value = value / value.square().mean().sqrt().clamp(min=1)
    alpha = (layer.biases["decay"].squeeze() + decay).sigmoid()
    eta = alpha / 2 * (layer.biases["rate"].squeeze() + rate).sigmoid()
    loss = (recall(layers, normalize(key, dim=0)) - value).square().sum()
    gradients = torch.autograd.grad(loss, layers, retain_graph=True)
    for new, old, gradient in zip(state.now["memory"], layers, gradients, strict=True):
        torch.testing.assert_close(new[0, 0], alpha * old - eta * gradient)


def printed(matrix, key, value, alpha, eta):
    """The update as the paper prints it: the square of the key and the gradient both subtract M k."""
    return matrix @ (alpha * torch.eye(len(key)) - eta * torch.outer(key, key)) - eta * torch.outer(
        matrix @ key - value, key
    )


def test_the_printed_update_stores_half_of_a_value_and_ours_all_of_it():
    key, value = normalize(torch.randn(6), dim=0), torch.randn(6)
    matrix = torch.zeros(6, 6)
    for _ in range(200):
        matrix = printed(matrix, key, value, alpha=1.0, eta=0.3)
    torch.testing.assert_close(matrix @ key, value / 2)

    layer = SelfModifier(6, chunk=1, adaptive=False, safeguards=Safeguards(max_value=None))
    with torch.no_grad():
        layer.biases["decay"].fill_(30.0)  # α = 1
        layer.query.weight.copy_(torch.eye(6))
        layer.initial["value"][0].copy_(torch.outer(value, key))
        outputs, _ = layer(key.expand(1, 200, 6))
    torch.testing.assert_close(outputs[0, -1], value)


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_dot_product_adds_values_until_decay_and_rate_balance(chunk):
    layer, key = SelfModifier(6, chunk=chunk, adaptive=False, objective="dot"), normalize(torch.randn(6), dim=0)
    with torch.no_grad():
        layer.biases["decay"].fill_(30.0)
        layer.query.weight.copy_(torch.eye(6))
        layer.initial["value"][0].mul_(0.5)
        outputs, _ = layer(key.expand(1, 400, 6))
    torch.testing.assert_close(outputs[0, -1], key / 2, rtol=1e-3, atol=1e-4)


def transition(layer, inputs, width):
    """The linear map of the memory matrix over some tokens, by its effect on each unit matrix. Keys do not adapt."""
    empty, basis = layer.reset(1).now["memory"][0], torch.eye(width, dtype=torch.float64)

    def after(matrix):
        state = layer.reset(1)
        memory = {"memory": (matrix.expand_as(empty),)}
        return layer(inputs, ModifierState(memory, memory, {}, state.stored, 0))[1].now["memory"][0][0, 0]

    zero = after(torch.zeros(width, width, dtype=torch.float64))
    return torch.stack([(after(torch.outer(basis[0], row)) - zero)[0] for row in basis])


@torch.no_grad()
@pytest.mark.parametrize(("rate", "decay"), [(30.0, 30.0), (0.0, 30.0), (30.0, 1.0), (0.0, -3.0)])
def test_the_update_of_one_token_is_a_contraction(rate, decay):
    layer = modifier(chunk=1, adaptive=False)
    layer.biases["rate"].fill_(rate)
    layer.biases["decay"].fill_(decay)
    for seed in range(5):
        update = transition(layer, 100 * tokens(1, 1, seed=seed), 6)
        assert torch.linalg.eigvals(update).abs().max() <= 1 + 1e-12
        assert torch.linalg.matrix_norm(update, 2) <= 1 + 1e-12


@torch.no_grad()
def test_the_update_of_a_chunk_can_be_no_contraction():
    """All gradients of a chunk are those at its start, so that together they can overshoot."""
    layer = modifier(chunk=8, width=4, adaptive=False)
    layer.biases["rate"].fill_(30.0)
    layer.biases["decay"].fill_(30.0)
    norms = [torch.linalg.matrix_norm(transition(layer, tokens(1, 8, 4, seed), 4), 2) for seed in range(20)]
    assert 1.05 < max(norms) < 1.5


@torch.no_grad()
@pytest.mark.parametrize(
    ("chunk", "count", "depth", "objective"),
    [(1, 600, 1, "regression"), (16, 2000, 1, "regression"), (16, 2000, 2, "regression"), (16, 2000, 1, "dot")],
)
@pytest.mark.parametrize("decay", [5.0, 30.0])
def test_memories_stay_bounded_on_long_streams(chunk, count, depth, objective, decay):
    layer = modifier(8, chunk=chunk, depth=depth, objective=objective)
    layer.biases["rate"].fill_(4.0)
    layer.biases["decay"].fill_(decay)
    outputs, state = layer(3 * tokens(1, count, 8))
    assert outputs.isfinite().all()
    assert state.stored.item() == count
    assert all(part.norm() < 40 for layers in state.now.values() for part in layers)


@torch.no_grad()
def test_without_a_limit_of_own_values_the_printed_memories_become_infinite():
    layer = SelfModifier(8, chunk=1, safeguards=Safeguards(max_value=None))
    _, state = layer(tokens(1, 40, 8).float())
    assert state.now["value"][0].norm() > 1e6
    assert state.stored.item() < 40  # later writes would not be finite


@torch.no_grad()
def test_memories_that_forget_to_zero_forget_how_to_make_values():
    inputs = normalize(tokens(1, 4000, 16), dim=-1).float()
    norms = {}
    for place in ("zero", "initial"):
        _, state = SelfModifier(16, forget_to=place)(inputs)
        norms[place] = state.now["value"][0].norm().item()
    assert norms["zero"] < 1e-3
    assert norms["initial"] > 0.5


@pytest.mark.parametrize("depth", [1, 2])
def test_heads_are_memories_of_their_own(depth):
    layer, inputs = modifier(heads=2, depth=depth, chunk=4), tokens()
    with torch.no_grad():
        layer.query.weight.copy_(torch.block_diag(*(layer.query.weight[part, part] for part in halves())))
    outputs, state = layer(inputs)
    for head, part in enumerate(halves()):
        alone = modifier(width=3, depth=depth, chunk=4)
        for own, both in zip(alone.parameters(), layer.parameters(), strict=True):
            own.data = both.data[part, part] if both is layer.query.weight else both.data[head : head + 1]
        expected, alone_state = alone(inputs[..., part])
        torch.testing.assert_close(outputs[..., part], expected)
        torch.testing.assert_close(state.now["key"][0][:, head], alone_state.now["key"][0][:, 0])


def halves():
    return slice(0, 3), slice(3, 6)


def test_sequences_of_a_batch_do_not_share_what_they_store():
    layer, inputs = modifier(chunk=4), tokens()
    torch.testing.assert_close(layer(inputs)[0][1:], layer(inputs[1:])[0])


def test_an_output_does_not_depend_on_later_tokens():
    layer, inputs = modifier(chunk=4, safeguards=Safeguards(max_writes=5)), tokens()
    other = torch.cat([inputs[:, :5], tokens(seed=3)[:, 5:]], 1)
    torch.testing.assert_close(layer(inputs)[0][:, :5], layer(other)[0][:, :5])


def test_the_given_state_does_not_change():
    layer, inputs = modifier(chunk=4, safeguards=Safeguards(average=0.5)), tokens()
    _, state = layer(inputs)
    copied = torch.utils._pytree.tree_map(lambda part: part.clone() if isinstance(part, torch.Tensor) else part, state)
    layer(inputs, state)
    torch.testing.assert_close(state, copied, rtol=0, atol=0)


@pytest.mark.parametrize("depth", [1, 2])
def test_gradients_flow_through_the_writes_to_all_parameters(depth):
    layer, inputs = modifier(width=3, depth=depth, chunk=2), tokens(1, 5, 3)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def outputs(inputs, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (inputs,))[0]

    inputs.requires_grad_()
    assert torch.autograd.gradcheck(outputs, (inputs, *parameters), fast_mode=True)
    gradients = torch.autograd.grad(outputs(inputs, *parameters).square().sum(), (inputs, *parameters))
    assert all(gradient.any() for gradient in gradients)


def test_a_detached_state_has_the_same_values_and_no_gradients():
    layer, inputs = modifier(chunk=4, safeguards=Safeguards(average=0.5)), tokens()
    _, state = layer(inputs)
    detached = state.detach()
    torch.testing.assert_close(layer(inputs, detached)[0], layer(inputs, state)[0], rtol=0, atol=0)
    assert not any(part.requires_grad for memories in detached[:3] for layers in memories.values() for part in layers)


def test_fixed_projections_are_a_titan_with_the_delta_rule():
    """The functions of keys, values and rates are not written, and have the gradients of ordinary layers."""
    layer = modifier(adaptive=False, chunk=4)
    outputs, state = layer(tokens())
    assert set(state.now) == {"memory"}
    outputs.square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())


def test_clipping_limits_the_norm_of_each_write():
    limit, inputs = 0.01, tokens(1, 1)
    free, clipped = (
        modifier(chunk=1, safeguards=Safeguards(max_grad_norm=norm), adaptive=False) for norm in (None, limit)
    )
    for layer in (free, clipped):
        layer.biases["rate"].data.fill_(30.0)
        layer.biases["decay"].data.fill_(30.0)  # α = 1 and η = ½
    changes = [layer(inputs)[1].now["memory"][0][0, 0] - layer.initial["memory"][0][0] for layer in (free, clipped)]
    assert changes[0].norm() > 10 * limit
    torch.testing.assert_close(changes[1].norm().item(), limit / 2)
    torch.testing.assert_close(normalize(changes[1].flatten(), dim=0), normalize(changes[0].flatten(), dim=0))


def test_own_values_are_limited():
    layer = SelfModifier(6, chunk=1, adaptive=False, safeguards=Safeguards(max_value=0.5))
    with torch.no_grad():
        layer.biases["decay"].fill_(30.0)
        layer.biases["rate"].fill_(30.0)
        layer.query.weight.copy_(torch.eye(6))
        outputs, _ = layer((1000 * torch.randn(1, 1, 6)).expand(1, 2, 6))
    torch.testing.assert_close(outputs[0, 1].square().mean().sqrt().item(), 0.5, rtol=1e-5, atol=0)


def test_an_average_of_zero_reads_the_start_of_the_chunk():
    inputs = tokens()
    averaged, plain = modifier(chunk=1, safeguards=Safeguards(average=0.0)), modifier(chunk=1)
    torch.testing.assert_close(averaged(inputs)[0], plain(inputs)[0])
    slow = modifier(chunk=1, safeguards=Safeguards(average=0.99))
    moved = [(layer(inputs)[0][:, -1] - layer(inputs[:, -1:])[0][:, 0]).norm() for layer in (slow, plain)]
    assert moved[0] < moved[1] / 5


def test_dropout_skips_the_writes_of_tokens_in_training_mode_alone():
    layer, inputs = modifier(chunk=4, safeguards=Safeguards(dropout=0.5)), tokens(batch=50)
    torch.manual_seed(1)
    outputs, state = layer(inputs)
    assert 0.4 < state.stored.sum() / (50 * 9) < 0.6
    torch.manual_seed(1)
    torch.testing.assert_close(layer(inputs)[0], outputs, rtol=0, atol=0)
    nothing = next(number for number in range(200) if draws(number, 4).lt(0.5).all())
    torch.manual_seed(nothing)
    _, after = layer(inputs[:1, :4], layer.reset(1))
    torch.testing.assert_close(after.now, layer.reset(1).now, rtol=0, atol=0)
    assert layer.eval()(inputs)[1].stored.eq(9).all()


def draws(seed, count):
    torch.manual_seed(seed)
    return torch.rand(1, count)


@pytest.mark.parametrize("cut", [2, 5, 9])
def test_a_budget_of_writes_is_kept_over_chunks_and_pieces(cut):
    layer, inputs = modifier(chunk=4, safeguards=Safeguards(max_writes=6)), tokens()
    _, state = layer(inputs[:, :cut])
    _, state = layer(inputs[:, cut:], state)
    assert state.stored.tolist() == [6, 6]
    _, expected = modifier(chunk=4)(inputs[:, :6])
    torch.testing.assert_close(state.now, expected.now)


@pytest.mark.parametrize("spoil", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_token_that_is_not_finite_is_left_out_in_its_sequence_alone(spoil, depth):
    layer, inputs = modifier(chunk=1, depth=depth, safeguards=Safeguards(max_value=None), adaptive=False), tokens()
    spoilt = inputs.clone()
    spoilt[0, 3, 1] = spoil
    outputs, state = layer(spoilt)
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    expected, without = layer(inputs[:, kept])
    whole_outputs, whole = layer(inputs)
    torch.testing.assert_close(outputs[0, kept], expected[0])
    torch.testing.assert_close(outputs[1], whole_outputs[1])
    assert outputs[0, 3].isnan().all()
    for weights, first, second in zip(state.now["memory"], without.now["memory"], whole.now["memory"], strict=True):
        torch.testing.assert_close(weights[0], first[0])
        torch.testing.assert_close(weights[1], second[1])
    assert state.stored.tolist() == [8, 9]


def test_a_token_that_is_not_finite_does_not_spoil_gradients():
    layer, inputs = modifier(depth=2, chunk=4), tokens()
    inputs[0, 3, 1] = math.nan
    outputs, _ = layer(inputs)
    outputs[~outputs.isnan()].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_tokens_of_zeros_have_finite_gradients():
    layer, inputs = modifier(depth=2, chunk=4), torch.zeros(1, 6, 6, dtype=torch.float64, requires_grad=True)
    layer(inputs)[0].square().sum().backward()
    assert inputs.grad.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_the_host_waits_for_no_value():
    """Tensors without values raise an error where the host asks for one."""
    with FakeTensorMode():
        safeguards = Safeguards(max_grad_norm=1.0, average=0.5, dropout=0.1, max_writes=5)
        layer = SelfModifier(8, depth=2, heads=2, chunk=4, safeguards=safeguards)
        outputs, _ = layer(torch.randn(2, 7, 8))
        assert outputs.shape == (2, 7, 8)


def test_half_precision_is_computed_in_single_precision_where_it_must():
    layer, inputs = SelfModifier(8, chunk=4), tokens(width=8).float()
    expected, _ = layer(inputs)
    outputs, state = layer.bfloat16()(inputs.bfloat16())
    assert outputs.dtype == state.now["key"][0].dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer.float()(inputs)
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.1)


def test_a_state_is_part_of_a_checkpoint(tmp_path):
    layer, inputs = modifier(heads=2, depth=2, chunk=4, safeguards=Safeguards(average=0.5)), tokens()
    _, state = layer(inputs)
    save_checkpoint(tmp_path / "state.safetensors", {"memory": tuple(state)}, {})
    loaded, _ = load_checkpoint(tmp_path / "state.safetensors")
    torch.testing.assert_close(ModifierState(*loaded["memory"]), state, rtol=0, atol=0)
    torch.testing.assert_close(layer(inputs, ModifierState(*loaded["memory"]))[0], layer(inputs, state)[0])


@pytest.mark.parametrize("decay", [1.0, 1e-30])
def test_the_recurrence_of_a_chunk_equals_a_loop_for_any_decay(decay):
    keys, values, queries = (tokens(seed=seed) for seed in range(3))
    decays = torch.full((2, 9), decay, dtype=torch.float64)
    rates = torch.rand(2, 9, dtype=torch.float64)
    start, origin = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    origin = origin[:1]  # one for both sequences
    left_out = torch.zeros(2, 9, dtype=torch.bool)
    left_out[0, 4] = True
    values[0, 4] = math.nan
    recurrence = DeltaRecurrence(keys / 2, decays.log(), rates, left_out)
    steps = recurrence.steps(keys / 2 @ start.mT, origin, values)
    read, matrix = [], start
    for token in range(9):
        key = keys[:, token, :, None] / 2
        read.append((matrix @ queries[:, token, :, None]).squeeze(-1))
        error = values[:, token, :, None] - matrix @ key
        after = origin + decays[:, token, None, None] * (matrix - origin)
        after = after + rates[:, token, None, None] * error @ key.mT
        matrix = torch.where(left_out[:, token, None, None], matrix, after)
    torch.testing.assert_close(recurrence.read(start, origin, steps, queries), torch.stack(read, 1))
    torch.testing.assert_close(recurrence.last(start, origin, steps), matrix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "expected whole numbers of 1 or more"),
        ({"chunk": 0}, "expected whole numbers of 1 or more"),
        ({"chunk": 2.5}, "expected whole numbers of 1 or more"),
        ({"heads": "2"}, "expected whole numbers of 1 or more"),
        ({"heads": 4}, "heads that divide the width"),
        ({"depth": 3}, "depth 1 or 2"),
        ({"expansion": -1}, "expected whole numbers of 1 or more"),
        ({"objective": "l1"}, "objective is 'l1'; expected regression or dot"),
        ({"safeguards": {"dropout": 0.1}}, r"safeguards is \{'dropout': 0.1\}; expected `Safeguards"),
        ({"forget_to": "one"}, "forget_to is 'one'; expected initial or zero"),
    ],
)
def test_invalid_layers_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        SelfModifier(**{"width": 6, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_value": 0.0}, "max_value is 0.0; expected more than 0, or None"),
        ({"max_grad_norm": math.nan}, "max_grad_norm is nan"),
        ({"average": 1.0}, "average is 1.0; expected a number from 0 to below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": "0.1"}, "dropout is '0.1'"),
        ({"max_value": "1"}, "max_value is '1'"),
        ({"max_writes": -1}, "max_writes is -1; expected an integer of 0 or more, or None"),
        ({"max_writes": 2.5}, "max_writes is 2.5; expected an integer"),
        ({"max_writes": True}, "max_writes is True; expected an integer"),
    ],
)
def test_invalid_safeguards_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        Safeguards(**options)


@pytest.mark.parametrize(
    "other",
    [
        {"depth": 2},
        {"heads": 2},
        {"width": 8},
        {"chunk": 9},
        {"adaptive": False},
        {"safeguards": Safeguards(average=0.5)},
    ],
)
def test_a_state_of_another_layer_is_refused(other):
    layer, others = modifier(chunk=4), modifier(**other)
    _, state = others(tokens(count=5, width=others.width))
    with pytest.raises(LayoutMismatch, match=r"as of `reset` of this layer \(width=6, depth=1"):
        layer(tokens(), state)


def test_states_of_other_numbers_of_sequences_and_other_widths_are_refused():
    layer = modifier()
    with pytest.raises(LayoutMismatch, match="a state with start of shape"):
        layer(tokens(), layer.reset(3))
    with pytest.raises(LayoutMismatch, match=r"expected \[batch, tokens, 6\]"):
        layer(tokens(width=5))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda state: state._replace(now=None), "now of shape None"),
        (lambda state: state._replace(average=None), "average of shape None"),
        (lambda state: state._replace(stored=state.stored[:1]), r"stored of shape \(1,\); expected \(2,\)"),
        (lambda state: state._replace(position=None), "position of shape None; expected 'from 0 to below 4'"),
        (tuple, "a state of the type tuple; expected ModifierState"),
    ],
)
def test_a_damaged_state_is_refused(changed, message):
    layer = modifier(chunk=4)
    with pytest.raises(LayoutMismatch, match=message):
        layer(tokens(), changed(layer.reset(2)))


def test_a_sequence_without_tokens_changes_nothing():
    outputs, state = modifier()(tokens(count=0))
    assert outputs.shape == (2, 0, 6)
    assert not state.stored.any()
