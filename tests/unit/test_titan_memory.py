"""TitanMemory against LinearMemory and a readable loop: chunks, pieces, gradients, heads, and invalid writes."""

import copy
import pickle
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from metaopt.core.errors import InvalidConfig, LayoutMismatch
from metaopt.nested import LinearMemory, MemoryState, Rates, TitanMemory, TitanState
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

RATES = Rates(0.05, 0.6, 0.1)


def pairs(batch=2, tokens=10, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, tokens, width, generator=generator, dtype=torch.float64).unbind()


def per_token(batch=2, tokens=10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Rates(*torch.rand(3, batch, tokens, generator=generator, dtype=torch.float64).mul(0.3).unbind())


def titan(width=6, **options):
    """A memory whose last layer is not zero, so that all layers learn from the first token."""
    torch.manual_seed(0)
    memory = TitanMemory(width, **{"depth": 2, "chunk": 4, "rates": RATES, **options}).double()
    torch.nn.init.normal_(memory.initial[-1], std=0.3)
    return memory


def part_of(rates, part):
    return Rates(*(rate[:, part] for rate in rates))


@pytest.mark.parametrize("rates", [Rates(0.5), RATES, per_token()])
def test_one_layer_and_chunks_of_one_token_are_a_linear_memory(rates):
    memory, (keys, values) = titan(depth=1, chunk=1, max_grad_norm=None), pairs()
    state = memory.write(memory.reset(2), keys, values, rates)
    linear = LinearMemory(6, 6)
    start = MemoryState(memory.initial[0][0].mT.expand(2, 6, 6), torch.zeros(2, 6, 6))
    expected = linear.write(start, keys, values, rates)
    torch.testing.assert_close(state.weights[0][:, 0].mT, expected.matrix)
    torch.testing.assert_close(state.momentum[0][:, 0].mT, expected.momentum)
    torch.testing.assert_close(memory.read(state, keys), linear.read(expected, keys))
    torch.testing.assert_close(memory.surprise(state, keys, values), linear.surprise(expected, keys, values))


def by_hand(memory, keys, values, rates, limit):
    """The write of one sequence and one head: gradients at the start of each chunk, η and α once per chunk."""

    def loss(weights, key, value):
        return (torch.nn.functional.gelu(key @ weights[0]) @ weights[1] - value).square().sum()

    weights = [layer[0].detach() for layer in memory.initial]
    momentum = [torch.zeros_like(layer) for layer in weights]
    for start in range(0, len(keys), memory.chunk):
        total = [torch.zeros_like(layer) for layer in weights]
        chunk = range(start, min(start + memory.chunk, len(keys)))
        for token in chunk:
            for sums, gradient in zip(total, torch.func.grad(loss)(weights, keys[token], values[token]), strict=True):
                sums += rates.lr[token] * gradient
        scale = min(1.0, limit / torch.cat([layer.flatten() for layer in total]).norm().item())
        kept, forgotten = (sum(rate[token] for token in chunk) / len(chunk) for rate in rates[1:])
        momentum = [kept * past - scale * gradient for past, gradient in zip(momentum, total, strict=True)]
        weights = [(1 - forgotten) * layer + past for layer, past in zip(weights, momentum, strict=True)]
    return weights, momentum


@pytest.mark.parametrize(("chunk", "limit"), [(1, None), (4, None), (4, 0.5), (10, 1.0)])
def test_a_chunked_write_takes_its_gradients_at_the_start_of_the_chunk(chunk, limit):
    memory, (keys, values), rates = titan(chunk=chunk, max_grad_norm=limit), pairs(), per_token()
    state = memory.flush(memory.write(memory.reset(2), keys, values, rates))
    for sequence in range(2):
        own = Rates(*(rate[sequence] for rate in rates))
        weights, momentum = by_hand(memory, keys[sequence], values[sequence], own, limit or float("inf"))
        for layer, expected in zip(state.weights, weights, strict=True):
            torch.testing.assert_close(layer[sequence, 0], expected)
        for layer, expected in zip(state.momentum, momentum, strict=True):
            torch.testing.assert_close(layer[sequence, 0], expected)


def test_heads_are_memories_of_their_own():
    memory, (keys, values) = titan(heads=2), pairs()
    state = memory.write(memory.reset(2), keys, values)
    for head, columns in enumerate((slice(0, 3), slice(3, 6))):
        alone = titan(width=3)
        for own, layer in zip(alone.initial, memory.initial, strict=True):
            own.data = layer.data[head : head + 1]
        expected = alone.write(alone.reset(2), keys[..., columns], values[..., columns])
        torch.testing.assert_close(memory.read(state, keys)[..., columns], alone.read(expected, keys[..., columns]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=3), st.booleans(), st.sampled_from([1, 2]))
def test_a_whole_sequence_equals_its_pieces(cuts, learned, heads):
    memory, (keys, values) = titan(learned=learned, heads=heads), pairs(tokens=11)
    whole = memory.write(memory.reset(2), keys, values)
    state, edges = memory.reset(2), [0, *sorted(cuts), 11]
    for start, end in pairwise(edges):
        state = memory.write(state, keys[:, start:end], values[:, start:end])
    torch.testing.assert_close(state, whole)
    assert state.stored.tolist() == [8, 8]
    assert state.waiting.shape[1] == 3
    torch.testing.assert_close(memory.flush(state), memory.flush(whole))


def test_sequences_of_a_batch_do_not_share_what_they_store():
    memory, (keys, values) = titan(heads=2), pairs()
    both = memory.write(memory.reset(2), keys, values)
    alone = memory.write(memory.reset(1), keys[1:], values[1:])
    torch.testing.assert_close(memory.read(both, keys)[1:], memory.read(alone, keys[1:]))


def test_the_given_state_does_not_change():
    memory, (keys, values) = titan(), pairs()
    state = memory.write(memory.reset(2), keys, values)
    copied = torch.utils._pytree.tree_map(torch.clone, state)
    memory.flush(memory.write(state, keys, values))
    torch.testing.assert_close(state, copied, rtol=0, atol=0)


def test_an_empty_memory_returns_zeros_and_learns_pairs():
    torch.manual_seed(0)
    memory, (keys, values) = TitanMemory(16, depth=2, chunk=1, rates=Rates(0.1)), pairs(tokens=4, width=16)
    keys, values = torch.nn.functional.normalize(keys.float(), dim=-1), values.float()
    state = memory.reset(2)
    assert not memory.read(state, keys).any()
    first = memory.surprise(state, keys, values)
    for _ in range(60):
        state = memory.write(state, keys, values)
    assert (memory.surprise(state, keys, values) < first / 10).all()
    assert (memory.read(state, keys) - values).square().sum() < 0.05 * values.square().sum()


def test_gradients_flow_to_initial_weights_gates_keys_and_values():
    memory, (keys, values) = titan(learned=True, chunk=2), pairs(tokens=5)
    keys.requires_grad_()
    values.requires_grad_()
    names, parameters = zip(*memory.named_parameters(), strict=True)
    assert {name.partition(".")[0] for name in names} == {"initial", "gates"}

    def loss(keys, values, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(_Recall(memory), {f"memory.{k}": v for k, v in given.items()}, (keys, values))

    assert torch.autograd.gradcheck(loss, (keys, values, *parameters), fast_mode=True)
    gradients = torch.autograd.grad(loss(keys, values, *parameters).square().sum(), (keys, values, *parameters))
    assert all(gradient.any() for gradient in gradients)


class _Recall(torch.nn.Module):
    """Read what was written; all tokens are used, those that would wait, too."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, keys, values):
        return self.memory.read(self.memory.flush(self.memory.write(self.memory.reset(2), keys, values)), keys)


def test_gates_begin_at_the_given_rates():
    learned, (keys, values) = titan(learned=True, heads=2), pairs()
    expected = learned.write(learned.reset(2), keys, values, RATES)
    torch.testing.assert_close(learned.write(learned.reset(2), keys, values), expected, rtol=1e-5, atol=1e-6)


def test_the_host_waits_for_no_value():
    """Tensors without values raise an error where the host asks for one. On a GPU: tests/gpu/test_memories.py."""
    with FakeTensorMode():
        memory = TitanMemory(10, heads=2, chunk=4, learned=True)
        keys, values = torch.randn(2, 2, 7, 10)
        state = memory.flush(memory.write(memory.reset(2), keys, values))
        assert memory.read(state, keys).shape == keys.shape
        assert memory.surprise(state, keys, values).shape == keys.shape[:2]


def test_a_memory_compiles_into_one_graph():
    memory, (keys, values) = titan(learned=True, heads=2), pairs(tokens=5)

    def recalled(keys, values):
        return memory.read(memory.write(memory.reset(2), keys, values), keys)

    compiled = torch.compile(recalled, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(keys, values), recalled(keys, values))


def test_a_missing_package_is_an_error_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "titans_pytorch", None)
    with pytest.raises(InvalidConfig, match=r'pip install "metaopt\[nested\]"'):
        TitanMemory(14)  # of a width that no other test has built


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_chunk_that_is_not_finite_is_left_out_in_its_sequence_alone(spoil):
    memory, (keys, values) = titan(learned=True, max_grad_norm=None), pairs(tokens=12)
    spoilt = values.clone()
    spoilt[0, 5, 1] = spoil
    state = memory.write(memory.reset(2), keys, spoilt)
    kept = [0, 1, 2, 3, 8, 9, 10, 11]
    without = memory.write(memory.reset(2), keys[:, kept], values[:, kept])
    whole = memory.write(memory.reset(2), keys, values)
    for layer, first, second in zip(state.weights, without.weights, whole.weights, strict=True):
        torch.testing.assert_close(layer[0], first[0])
        torch.testing.assert_close(layer[1], second[1])
    assert state.stored.tolist() == [8, 12]
    memory.read(state, keys).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in memory.parameters())


def test_a_write_that_overflows_is_left_out():
    memory, (keys, values) = titan(max_grad_norm=None), pairs(tokens=12)
    values[0, 0] = 1e200
    state = memory.write(memory.reset(2), keys, values)
    assert all(layer.isfinite().all() for layer in (*state.weights, *state.momentum))
    assert state.stored[0] < state.stored[1] == 12


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 100.0), (torch.float32, 1e20), (torch.float32, 1e30)])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_gradient_whose_norm_overflows_is_not_stored_and_spoils_no_gradient(dtype, factor, depth):
    memory, (keys, values) = titan(depth=depth, heads=2, learned=True).to(dtype), pairs(tokens=8)
    keys[0, :4] *= factor
    state = memory.write(memory.reset(2), keys.to(dtype), values.to(dtype))
    assert state.stored.tolist() == [4, 8]
    rest = memory.write(memory.reset(2), keys[:, 4:].to(dtype), values[:, 4:].to(dtype))
    assert all(torch.equal(layer[0], alone[0]) for layer, alone in zip(state.weights, rest.weights, strict=True))
    memory.read(state, values.to(dtype)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in memory.parameters())


def test_deep_memories_stay_finite_on_long_sequences_with_large_values():
    memory = TitanMemory(8, depth=4, chunk=4, rates=Rates(0.1, 0.9, 0.01))
    keys, values = torch.randn(2, 1, 600, 8)
    state = memory.write(memory.reset(1), 3 * keys, 30 * values)
    assert state.stored.tolist() == [600]
    assert memory.read(state, keys).isfinite().all()


def test_a_pair_without_surprise_changes_nothing():
    """The limit of the library's own would give not a number here, and a norm of one half for a small surprise."""
    memory, (keys, _) = titan(rates=Rates(0.05)), pairs(tokens=4)
    state = memory.reset(2)
    for shift in (0.0, 1e-6):
        after = memory.write(state, keys, memory.read(state, keys) + shift)
        assert after.stored.tolist() == [4, 4]
        assert max((new - old).abs().max() for new, old in zip(after.weights, state.weights, strict=True)) < 1e-5


def test_a_sequence_shorter_than_a_chunk_waits_with_one_warning(caplog):
    memory, (keys, values) = titan(), pairs(tokens=3)
    with caplog.at_level("WARNING", "metaopt"):
        state = memory.write(memory.reset(2), keys, values)
        memory.write(memory.reset(2), keys, values)
        memory.write(memory.reset(2), *pairs())
    (message,) = [record.getMessage() for record in caplog.records]
    assert "3 tokens wait until the chunk of 4 is full; call `flush`" in message
    torch.testing.assert_close(state.weights, memory.reset(2).weights)
    flushed = memory.flush(state)
    assert flushed.stored.tolist() == [3, 3]
    assert not flushed.waiting.shape[1]
    assert not torch.equal(flushed.weights[0], state.weights[0])


def test_memories_without_chunks_have_nothing_to_flush():
    state = LinearMemory(6, 6).write(LinearMemory(6, 6).reset(2), *pairs())
    assert LinearMemory(6, 6).flush(state) is state


def test_a_state_is_part_of_a_checkpoint(tmp_path):
    memory, (keys, values) = titan(heads=2), pairs()
    state = memory.write(memory.reset(2), keys, values)
    save_checkpoint(tmp_path / "state.safetensors", {"memory": tuple(state)}, {})
    loaded, _ = load_checkpoint(tmp_path / "state.safetensors")
    torch.testing.assert_close(TitanState(*loaded["memory"]), state, rtol=0, atol=0)


def _pickled(memory):
    return pickle.loads(pickle.dumps(memory))  # noqa: S301  # as a process that is started does


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled])
def test_copies_compute_the_same(copied):
    memory, (keys, values) = titan(learned=True), pairs()
    state = memory.write(memory.reset(2), keys, values)
    torch.testing.assert_close(copied(memory).write(memory.reset(2), keys, values), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "expected whole numbers of 1 or more"),
        ({"depth": 0}, "expected whole numbers of 1 or more"),
        ({"chunk": 0}, "expected whole numbers of 1 or more"),
        ({"chunk": 2.5}, "expected whole numbers of 1 or more"),
        ({"width": 6.0}, "expected whole numbers of 1 or more"),
        ({"heads": 4}, "heads that divide the width"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected more than 0, or None"),
        ({"rates": Rates(-0.1)}, "expected lr of 0 or more"),
        ({"rates": Rates(0.1, 1.5)}, "momentum and forget from 0 to 1"),
        ({"rates": Rates(0.1, 0.0, float("nan"))}, "momentum and forget from 0 to 1"),
        ({"rates": Rates(0.1), "learned": True}, "gates that begin at .* both excluded"),
        ({"max_grad_norm": "1"}, "max_grad_norm is '1'; expected more than 0, or None"),
        ({"rates": 0.1}, "rates is 0.1; expected Rates"),
        ({"rates": Rates("a"), "learned": True}, "expected lr of 0 or more"),
        ({"rates": per_token()}, "expected numbers. `write` takes one per token"),
    ],
)
def test_invalid_memories_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        TitanMemory(**{"width": 6, **options})


@pytest.mark.parametrize(
    "other",
    [
        {"depth": 3},
        {"heads": 2},
        {"heads": 3},
        {"expansion": 4},
        {"width": 8},
        {"chunk": 8},
    ],
)
def test_a_state_of_another_memory_is_refused(other):
    memory, others = titan(), titan(**other)
    state = others.write(others.reset(2), *pairs(width=others.width, tokens=7))
    for call in (memory.write, memory.surprise):
        with pytest.raises(LayoutMismatch, match=r"as of `reset` of this memory \(width=6, depth=2"):
            call(state, *pairs())
    with pytest.raises(LayoutMismatch, match="a state with"):
        memory.read(state, pairs()[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda state: state._replace(weights=None), "weights of shape None"),
        (lambda state: state._replace(momentum=None), "momentum of shape None"),
        (lambda state: state._replace(momentum=state.momentum[:1]), "momentum of shape"),
        (lambda state: state._replace(momentum=tuple(each[:1] for each in state.momentum)), "momentum of shape"),
        (lambda state: state._replace(waiting=None), "(waiting|weights) of shape"),
        (lambda state: state._replace(waiting=state.waiting[:1]), "(waiting|weights) of shape"),
        (lambda state: state._replace(waiting=state.waiting[0]), "(waiting|weights) of shape"),
        (lambda state: state._replace(stored=None), "stored of shape None"),
        (lambda state: state._replace(stored=state.stored[:1]), r"stored of shape \(1,\); expected \(2,\)"),
        (tuple, "a state of the type tuple; expected TitanState"),
        (lambda _: LinearMemory(6, 6).reset(2), "a state of the type MemoryState; expected TitanState"),
    ],
)
def test_a_damaged_state_is_refused(changed, message):
    memory, (keys, values) = titan(), pairs(tokens=7)
    state = changed(memory.write(memory.reset(2), keys, values))
    for call in (memory.flush, partial(memory.read, queries=keys), partial(memory.write, keys=keys, values=values)):
        with pytest.raises(LayoutMismatch, match=message):
            call(state)


@pytest.mark.parametrize("tokens", [0, 3, 6])
def test_a_batch_without_sequences_is_valid(tokens):
    for memory in (titan(learned=True), LinearMemory(6, 6)):
        state = memory.flush(memory.write(memory.reset(0), *pairs(batch=0, tokens=tokens)))
        assert memory.read(state, pairs(batch=0)[0]).shape == (0, 10, 6)
        assert memory.surprise(state, *pairs(batch=0)).shape == (0, 10)


def test_states_of_other_numbers_of_sequences_are_refused():
    for memory in (titan(), LinearMemory(6, 6)):
        with pytest.raises(LayoutMismatch, match="a state with"):
            memory.write(memory.reset(3), *pairs())


@pytest.mark.parametrize("shapes", [((2, 7, 5), (2, 7, 6)), ((2, 7, 6), (2, 6, 6)), ((2, 7, 6), (2, 7, 5))])
def test_widths_and_tokens_that_do_not_fit_are_refused(shapes):
    memory = titan()
    with pytest.raises(LayoutMismatch, match=r"expected \[batch, tokens, 6\] and \[batch, tokens, 6\]"):
        memory.write(memory.reset(2), *map(torch.zeros, shapes))


def test_the_library_is_imported_while_a_network_is_built_on_the_meta_device(monkeypatch, tmp_path):
    """Its import computes a number, in tensordict. Here that is all it does, since the real one takes 10 s."""
    titan()
    (tmp_path / "titans_pytorch.py").write_text(
        "import sys\nimport torch\n\ntorch.ones(1).item()\n"
        "NeuralMemory = sys.modules['titans_pytorch.neural_memory'].NeuralMemory\n"
    )
    monkeypatch.delitem(sys.modules, "titans_pytorch")
    monkeypatch.syspath_prepend(tmp_path)
    with torch.device("meta"):
        TitanMemory(18)  # of a width that no other test has built
    assert Path(sys.modules["titans_pytorch"].__file__).parent == tmp_path


@pytest.mark.slow
def test_a_fresh_process_imports_the_real_library_while_a_network_is_built_on_the_meta_device():
    code = "import torch; from metaopt.nested import TitanMemory\nwith torch.device('meta'): TitanMemory(4)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
