"""Nowcasts in two real processes that train one network: the first decides, both end with equal weights."""

import subprocess
import sys

import pytest
import torch

WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from metaopt.nowcast import Nowcast, reestimate_batchnorm
from metaopt.generative import get_optimizer_model

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

def batch(step):
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(2 * step + rank))
    return inputs, inputs[:, :3].argmax(1)

def train(averaging):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model = nn.parallel.DistributedDataParallel(network)

    # Three times: before, and two horizons; of averages that are better, the weights without and with the change, too.
    yes, no = [4, 3, 2], [1, 2, 2]
    first, other = yes + no + yes, no + yes + no
    if averaging:
        first, other = yes + [1, 2] + no + yes + [2, 1], no + [2, 1] + yes + no + [1, 2]
    losses = iter([torch.tensor([float(each)] * (2 + rank)) for each in (first if rank == 0 else other)])

    def guard():  # the processes disagree, and talk to each other while they look
        dist.all_reduce(torch.ones(1))
        return next(losses)

    optimizer = Nowcast(
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), model,
        get_optimizer_model("Line", averaging=averaging), every=4, stride=2, horizons=[1, 2], ema=0.9,
        guard=guard, reestimate=lambda: reestimate_batchnorm(network, [batch(100), batch(101)]), max_overhead=None,
    )
    for step in range(12):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    averages = [tensor for average in optimizer._tracked.averages for tensor in average.tensors]
    events = [list(event) for event in optimizer.events]
    return {"model": network.state_dict(), "averages": averages, "events": events}

torch.save([train(averaging) for averaging in (0.0, 0.8)], f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


STATISTICS = """
import copy, sys, torch, torch.distributed as dist
from torch import nn
from metaopt.nowcast import Nowcast, reestimate_batchnorm
from metaopt.generative import get_optimizer_model

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

def batch(step):
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(2 * step + rank))

def statistics():
    return [values.clone() for name, values in network.state_dict().items() if "running" in name]

def estimated():
    other = copy.deepcopy(network)
    reestimate_batchnorm(other, map(batch, range(4)))
    return [values for name, values in other.state_dict().items() if "running" in name]

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
model = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
optimizer = Nowcast(
    torch.optim.SGD(model.parameters(), lr=0.05), model, get_optimizer_model("Line"), every=4, stride=2, ema=0.9,
    max_overhead=None,
)
for step in range(4):
    optimizer.zero_grad()
    model(batch(step)).square().mean().backward()
    trained = statistics()
    optimizer.step()
found = {"followed": optimizer.events[0].followed, "trained": trained}
found["moved"], found["expected of moved"] = statistics(), estimated()
with optimizer.averaged_weights():
    found["averaged"], found["expected of averaged"] = statistics(), estimated()
torch.save(found, f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


STREAMS = """
import sys, torch, torch.distributed as dist
from metaopt.nested import Hope, HopeConfig
from metaopt.nested.carried_memory import carried_memories
from metaopt.nowcast import Nowcast
from metaopt.generative import get_optimizer_model

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
model = Hope(HopeConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, chunk=2, carry_memory=True))
network = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
base = torch.optim.SGD(model.parameters(), lr=0.05)
optimizer = Nowcast(base, network, get_optimizer_model("Line"), every=2, stride=1, max_overhead=None)
kept = []
for step in range(4):
    tokens = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    network(tokens).square().mean().backward()
    before = {name: value.clone() for name, value in carried_memories(network).items()}
    optimizer.step()
    kept.append(all(torch.equal(value, before[name]) for name, value in carried_memories(network).items()))
    model.write_memories(tokens)
states = {"kept": kept, "memories": carried_memories(network), "model": model.state_dict()}
torch.save(states, f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


SHARDED = """
import copy, sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, FullyShardedDataParallel
from metaopt.nested import Hope, HopeConfig
from metaopt.nowcast import Nowcast
from metaopt.generative import get_optimizer_model
from metaopt.core.errors import LayoutMismatch

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

def refused(model):
    base = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    try:
        Nowcast(base, model, get_optimizer_model("Line"), max_overhead=None)
    except LayoutMismatch as error:
        return str(error)

def network():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

messages = {"FSDP2": refused(fully_shard(network(), mesh=dist.device_mesh.init_device_mesh("cpu", (2,))))}
messages["FSDP"] = refused(FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True))

sizes = dict(vocab_size=8, block_size=8, n_layer=2, n_head=2, n_embd=8, chunk=4, periods=(1, 2), variant="nested")
torch.manual_seed(0)
whole, tokens = Hope(HopeConfig(**sizes)), torch.randint(8, (3, 8), generator=torch.Generator().manual_seed(0))
sharded, outputs = copy.deepcopy(whole), {}
for block in sharded.blocks:
    fully_shard(block)
fully_shard(sharded)
for name, model in (("whole", whole), ("sharded", sharded)):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.learning_levels().attach(optimizer)
    for step in range(4):
        optimizer.zero_grad()
        model(tokens).square().mean().backward()
        optimizer.step()
    outputs[name] = model(tokens).detach()
torch.save({"messages": messages, "outputs": outputs}, f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


def together(code, folder):
    """What each of two processes saves that run this code."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(rank), str(folder)], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        for worker in workers:
            _, said = worker.communicate(timeout=120)
            assert worker.returncode == 0, said
    finally:
        for worker in workers:
            worker.kill()  # one waits for ever for another that has failed
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each of two processes has after training together, without and with averages."""
    return together(WORKER, tmp_path_factory.mktemp("ranks"))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
@pytest.mark.parametrize("averaging", [False, True])
def test_two_processes_agree_with_the_first(trained, averaging):
    one, other = (states[averaging] for states in trained)
    assert one["events"] == other["events"]
    assert [event[3] for event in one["events"]] == [True, False, True]
    assert [event[5] for event in one["events"]] == [not averaging, False, True]
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert len(one["averages"]) == (18 if averaging else 6)
    assert all(map(torch.equal, one["averages"], other["averages"]))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
def test_batchnorm_statistics_are_those_of_the_inputs_of_the_first_process(tmp_path):
    first, other = together(STATISTICS, tmp_path)
    assert first["followed"]
    assert not any(map(torch.equal, first["trained"], other["trained"]))
    for kind in ("moved", "averaged"):
        assert all(map(torch.allclose, first[kind], first[f"expected of {kind}"]))
        assert all(map(torch.equal, first[kind], other[kind]))
        assert not any(map(torch.allclose, first[kind], first["trained"]))
        assert not any(map(torch.allclose, other[kind], other[f"expected of {kind}"]))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
def test_each_process_keeps_the_memories_of_its_own_sequences(tmp_path):
    one, other = together(STREAMS, tmp_path)
    assert one["kept"] == other["kept"] == [True] * 4
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert not all(torch.equal(one["memories"][name], other["memories"][name]) for name in one["memories"])


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What each of two processes says of sharded networks, and what sharded and whole networks compute."""
    return together(SHARDED, tmp_path_factory.mktemp("sharded"))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
def test_sharded_weights_are_refused_on_all_ranks_when_built(sharded):
    one, other = (saved["messages"] for saved in sharded)
    assert one == other
    assert "0.weight of FSDPSequential is a DTensor" in one["FSDP2"]
    assert "sharded over processes" in one["FSDP"]
    assert all("DistributedDataParallel" in message for message in one.values())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
def test_a_hope_whose_blocks_are_sharded_trains_as_a_whole_one(sharded):
    for saved in sharded:
        torch.testing.assert_close(saved["outputs"]["sharded"], saved["outputs"]["whole"])
