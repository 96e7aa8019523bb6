"""Memories on a GPU: the host waits for no value, and results are those of the CPU."""

import pytest
import torch

from metaopt.nested import LinearMemory, Rates, TitanMemory

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", ["linear", "titan"])
def test_a_memory_computes_the_same_on_the_device_without_waiting_for_it(kind, device, waiting_is_an_error):
    if kind == "titan":
        pytest.importorskip("titans_pytorch.neural_memory")
    torch.manual_seed(0)
    rates = Rates(0.1, 0.5, 0.01)
    memory = LinearMemory(8, 8, rates=rates) if kind == "linear" else TitanMemory(8, heads=2, chunk=4, rates=rates)
    keys, values = torch.nn.functional.normalize(torch.randn(2, 3, 10, 8), dim=-1)

    def recalled(state, keys, values):
        return memory.read(memory.flush(memory.write(state, keys, values)), keys)

    expected = recalled(memory.reset(3), keys, values)
    if kind == "titan":
        memory.to(device)
    keys, values = keys.to(device), values.to(device)
    state = memory.write(memory.reset(3), keys[:, :0], values[:, :0])  # a linear memory moves to its keys
    with waiting_is_an_error():
        found = recalled(state, keys, values)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
