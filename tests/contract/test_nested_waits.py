"""A training step of HOPE never makes the host wait for the device, with any memory and between any updates."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks._measure import Operations
from metaopt.nested import Hope, HopeConfig
from metaopt.nested.hope_memory import MEMORIES
from metaopt.optimizers import optimizer_for

SIZES = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, "chunk": 4, "periods": (1, 2)}


@pytest.fixture
def device():
    """Has no memory and needs no runtime, which gradients of tensors without values on a CUDA device would start."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("lazy", 0)


def test_what_makes_the_host_wait_is_counted(device):
    tensor, on_host = torch.zeros(3, device=device, requires_grad=True), torch.zeros(3)
    with Operations() as counted:
        (2 * tensor).sum().backward()
        assert counted.total > 3
        assert counted.waits == 0
        values = (lambda: tensor.sum().item(), lambda: bool(tensor.any()), tensor.cpu, lambda: tensor.equal(tensor))
        constants = (lambda: tensor.new_tensor([1.0, 2.0]), lambda: tensor[[0, 1]], lambda: tensor.data.copy_(on_host))
        for wait in (*values, *constants):
            before = counted.waits
            wait()
            assert counted.waits == before + 1
        on_host.to(device, non_blocking=True)
        tensor.data.copy_(on_host, non_blocking=True)
        assert counted.waits == len(values) + len(constants)


@pytest.fixture(params=["none", *MEMORIES])
def built(request):
    """Listed before `device` by the test: built with values, which are then moved."""
    return Hope(HopeConfig(memory=request.param, **SIZES))


def test_a_step_of_hope_waits_for_nothing(built, device):
    model = built.to(device)
    optimizer = optimizer_for(model, "Adam", 1e-2, {})
    tokens = torch.zeros(2, 8, dtype=torch.long, device=device)
    with Operations() as counted:
        for _ in range(3):  # a level is due, or not
            optimizer.zero_grad()
            model(tokens).square().mean().backward()
            optimizer.step()
    assert counted.total > 100
    assert counted.waits == 0
