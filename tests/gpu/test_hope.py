"""HOPE and HopeOptimizer on a GPU: the host waits for no value in a training step, and results are those of the CPU."""

import copy

import pytest
import torch

from metaopt import Layout, get_optimizer_model
from metaopt.nested import Hope, HopeConfig
from metaopt.nested.carried_memory import carried_memories
from metaopt.optimizers import optimizer_for
from metaopt.weights.snapshots import Snapshots

pytestmark = pytest.mark.gpu

SIZES = {"vocab_size": 11, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 16, "chunk": 4, "periods": (1, 2)}


class Training:
    """A copy of a network on a device, and its optimizer."""

    def __init__(self, model, device):
        self.model, self.device = copy.deepcopy(model).to(device), device
        self.optimizer = optimizer_for(self.model, "SGD", 0.5, {"momentum": 0.9})

    def tokens(self, step):
        return torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(step)).to(self.device)

    def step(self, tokens):
        self.optimizer.zero_grad()
        logits = self.model(tokens)
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        self.optimizer.step()
        self.model.write_memories(tokens)
        return logits.detach()


@pytest.mark.parametrize("memory", ["none", "linear", "self"])
def test_a_training_equals_that_on_the_cpu_without_waiting_for_the_device(memory, device, waiting_is_an_error):
    torch.manual_seed(0)
    model = Hope(HopeConfig(memory=memory, carry_memory=memory != "none", **SIZES))
    ours, expected = Training(model, device), Training(model, torch.device("cpu"))
    for step in range(2):  # until each level has been updated, and its optimizer has a state
        ours.step(ours.tokens(step))
        expected.step(expected.tokens(step))
    for step in range(2, 6):
        tokens = ours.tokens(step)
        with waiting_is_an_error():
            logits = ours.step(tokens)
        torch.testing.assert_close(logits.cpu(), expected.step(expected.tokens(step)), rtol=1e-3, atol=1e-4)
    for name, weights in expected.model.named_parameters():
        found = ours.model.get_parameter(name)
        assert found.device.type == device.type
        assert not torch.equal(weights, model.get_parameter(name)), name
        torch.testing.assert_close(found.cpu(), weights, rtol=1e-3, atol=1e-4)
    carried = carried_memories(ours.model)
    assert bool(carried) == (memory != "none")
    for name, change in carried_memories(expected.model).items():
        torch.testing.assert_close(carried[name].cpu(), change, rtol=1e-3, atol=1e-4)


def test_a_forecast_of_hope_optimizer_from_what_it_observed_equals_that_on_the_cpu(device):
    torch.manual_seed(0)
    optimizer = get_optimizer_model("HopeOptimizer", dim=8, keys=4, history=9)
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    layout = Layout.of(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)))
    history, times = torch.randn(layout.size) + 0.1 * torch.randn(12, layout.size).cumsum(0), 20.0 * torch.arange(12)
    ends = times[-1] + torch.tensor([20.0, 160.0])

    @torch.no_grad()
    def forecast(optimizer, history, times, ends):
        state = optimizer.initial_state(layout)
        for stop in range(1, 13):
            recent = slice(max(0, stop - 9), stop)
            state = optimizer.observe(state, Snapshots.of(history[recent]), times[recent], layout)
        return state[0], optimizer.forecast(Snapshots.of(history[-9:]), times[-9:], ends, layout, state)

    expected = forecast(optimizer, history, times, ends)
    found = forecast(optimizer.to(device), *(each.to(device) for each in (history, times, ends)))
    assert expected[0].any()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.device.type == device.type
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
