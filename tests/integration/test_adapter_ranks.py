"""Budgets in two real processes that train one network with adapters: no communication, equal adapters."""

import subprocess
import sys

import pytest
import torch

WORKER = """
import sys, torch, torch.distributed as dist
from metaopt import get_target_model
from metaopt.adapters import DeltaBudget, adapters_of, insert_adapters

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
network = get_target_model("MLP", in_features=6, widths=(8,), classes=3)
insert_adapters(network, {"method": "lora", "modules": ["layers.1", "layers.3"], "rank": 2, "alpha": 4.0})
model = torch.nn.parallel.DistributedDataParallel(network)
optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=20.0)
budget = DeltaBudget(network, cap=0.25)
budget.attach(optimizer)
shares = []
for step in range(4):
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()
    shares += [((each.scale * each.up @ each.down).double().norm() / each.base.double().norm()).item()
               for each in adapters_of(network)]
torch.save({"model": network.state_dict(), "shares": shares}, f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow  # each process imports PEFT, which takes up to 20 seconds
def test_replicas_stay_equal_and_within_their_budget(tmp_path):
    command = [sys.executable, "-c", WORKER]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in range(2))
    assert all(tensor.equal(second["model"][name]) for name, tensor in first["model"].items())
    assert first["shares"] == second["shares"]
    assert 0.2499 < max(first["shares"]) <= 0.25 * (1 + 1e-6)
