"""Where the history of Nowcast is kept, and its path of a forecast on another device."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.core.errors import InvalidConfig
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import guard_from
from metaopt.nowcast.optimizer import Nowcast

from ..small_training import adam, guarded, network, nowcast, same_state, train, trained_alone

MEMORIES = [("float32", None), ("float32", "cpu"), ("bfloat16", "cpu")]
memories = pytest.mark.parametrize(("dtype", "device"), MEMORIES)


@memories
def test_with_hold_training_is_that_of_the_base_optimizer_bit_for_bit(dtype, device):
    model = network()
    optimizer = nowcast(model, "Hold", history_dtype=dtype, history_device=device)
    train(model, optimizer, range(11))
    assert all(event.followed for event in optimizer.events)
    assert same_state(model, trained_alone(11))


def test_a_history_in_bfloat16_has_the_last_snapshot_in_float32():
    model = network()
    optimizer = guarded(model, history_dtype="bfloat16")
    train(model, optimizer, range(14))
    exact = network()
    in_float32 = guarded(exact)
    train(exact, in_float32, range(14))
    rows = optimizer.state_dict()["nowcast"]["history"]
    assert [row.dtype for row in rows] == 4 * [torch.bfloat16] + [torch.float32]
    for row, expected in zip(rows, in_float32.state_dict()["nowcast"]["history"], strict=True):
        torch.testing.assert_close(row.float(), expected, rtol=0.02, atol=0.01)


@memories
@pytest.mark.parametrize("stop", [3, 9, 14])
def test_resume_equals_one_go_bit_for_bit(dtype, device, stop):
    options = {"history_dtype": dtype, "history_device": device}
    whole, first, second = network(), network(), network()
    in_one_go, before = guarded(whole, **options), guarded(first, **options)
    train(whole, in_one_go, range(20))
    train(first, before, range(stop))
    second.load_state_dict(first.state_dict())
    after = guarded(second, **options)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    train(second, after, range(stop, 20))
    assert same_state(second, whole)
    assert after.events == in_one_go.events
    for ours, theirs in zip(*(each.state_dict()["nowcast"]["history"] for each in (after, in_one_go)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
def test_a_state_can_be_loaded_in_another_precision(saved):
    model = network()
    optimizer = guarded(model, history_dtype=saved)
    train(model, optimizer, range(6))
    other = guarded(model, history_dtype="bfloat16" if saved == "float32" else "float32")
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other._tracked.history.snapshots.rows[-1], optimizer._tracked.history.snapshots.rows[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history_dtype": "float16"}, "history_dtype is 'float16'; expected one of float32, bfloat16"),
        ({"history_device": "moon"}, "history_device is 'moon'; expected a device such as 'cpu'"),
    ],
)
def test_unknown_memory_is_an_error(options, message):
    with pytest.raises(InvalidConfig, match=message):
        guarded(network(), **options)


class Verdicts(TorchDispatchMode):
    """Answers each value that the host asks for, and counts them: fake tensors have no values."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.count = answer, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
            return self.answer if args[0].dtype is torch.bool else float(self.answer)
        if function is torch.ops.aten.equal.default:
            self.count += 1
            return False
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("forecaster", ["Line", "PerceiverOptimizer"])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
@memories
def test_steps_snapshots_and_nowcasts_work_on_another_device(forecaster, averaging, dtype, device, fake_cuda):
    with torch.device(fake_cuda):
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
        learned = get_optimizer_model(forecaster, averaging=averaging)
        inputs = torch.randn(5, 4)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = Nowcast(
        base,
        model,
        learned,
        every=8,
        stride=2,
        horizons=[2, 4],
        guard=lambda: model(inputs).square().mean(1),
        history_dtype=dtype,
        history_device=device,
        max_overhead=None,
    )
    for weights in model.parameters():
        weights.grad = torch.ones_like(weights)
    with Verdicts(True) as between:
        for _ in range(7):
            optimizer.step()
    assert between.count == 0  # neither steps nor snapshots wait for the device
    with Verdicts(True) as verdicts:
        optimizer.step()
    assert optimizer.events[-1].followed
    assert verdicts.count < 25
    assert optimizer.predict().device == inputs.device
    assert {row.device.type for row in optimizer.state_dict()["nowcast"]["history"]} == {"cpu"}


class InOrder:
    """Batches that can only be read in their order."""

    def __init__(self, inputs, labels):
        self.batches = list(zip(inputs.split(8), labels.split(8), strict=True))

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("data", [lambda *both: both, lambda *both: list(zip(*both, strict=True)), InOrder])
def test_examples_of_a_guard_and_kept_inputs_are_on_the_device_of_the_network(data, fake_cuda, caplog, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # fake tensors cannot
    with torch.device(fake_cuda):
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    seen = []

    def loss(outputs, labels):
        seen.append((outputs.device.type, labels.device.type))
        return nn.functional.cross_entropy(outputs, labels, reduction="none")

    with Verdicts(True):
        held_out = data(torch.randn(40, 4), torch.zeros(40, dtype=torch.long))
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = nowcast(model, base=base, horizons=[2, 4], guard=guard_from(held_out, loss))
        for _ in range(4):
            model(torch.randn(5, 4, device=fake_cuda))
            for weights in model.parameters():  # without a GPU there is no backward pass
                weights.grad = torch.ones_like(weights)
            optimizer.step()
    assert optimizer.events[-1].followed
    assert set(seen) == {(fake_cuda, fake_cuda)}
    assert [each.arguments[0].device.type for each in optimizer._passes.recent] == [fake_cuda] * 4
    assert {values.device.type for values in model.buffers()} == {fake_cuda}
    assert not caplog.records  # the statistics could be estimated


@pytest.mark.parametrize("limit", [2**24, 100])
def test_a_language_model_with_its_history_in_bfloat16_in_main_memory(limit, monkeypatch):
    """The path of a network of which the device has no memory for the history, in small."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("metaopt.nowcast.proposals._WEIGHTS_AT_ONCE", limit)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **shape))
    tokens = torch.randint(50, (4, 12))
    losses = lambda: model(input_ids=tokens, labels=tokens).loss  # noqa: E731
    optimizer = Nowcast(
        adam(model),
        model,
        "builtin",
        every=4,
        stride=2,
        guard=lambda: float(losses()),
        history_device="cpu",
        history_dtype="bfloat16",
        max_overhead=None,
    )
    for _ in range(12):
        optimizer.zero_grad()
        losses().backward()
        optimizer.step()
    assert any(event.accepted for event in optimizer.events)
    assert all(weights.isfinite().all() for weights in model.parameters())
