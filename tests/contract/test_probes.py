"""The contract of probes: what every one of them does, of metaopt or of a plug-in, on each network it applies to."""

import math
import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from metaopt.core.rng import random_states
from metaopt.probes import PROBES, get_probe, run_probe, sample_examples
from metaopt.probes.running import why_not
from metaopt.targets import get_target_model
from metaopt.tasks import Batch, load_task
from metaopt.tasks.language_model import LanguageModel

from ..tiny_video import TinyVideo, TinyVideos

TOKENS = 12
NETWORKS = {
    "MLP": lambda task: get_target_model("MLP", task.model_facts, widths=(8, 6)),
    "ConvNet": lambda task: get_target_model("ConvNet", task.model_facts, norm="batch"),
    "GPT": lambda task: get_target_model("GPT", vocab_size=TOKENS, block_size=6, n_layer=2, n_head=2, n_embd=8),
    "TinyVideo": lambda task: TinyVideo(),
}


EVERYWHERE = ("delta-budgets", "dead-units", "loss-line", "spectrum", "weight-norms")
CASES = [
    *((network, name) for network in NETWORKS for name in EVERYWHERE),
    *((network, name) for network in ("GPT", "TinyVideo") for name in ("attention-logits", "embedding-drift")),
    ("TinyVideo", "null-text-drift"),
    ("TinyVideo", "prompt-grid"),
    *(("MLP", name) for name in PROBES.names() if name not in PROBES.table),  # of plug-ins
]


class Language(LanguageModel):
    """Random sequences."""

    def __init__(self):
        tokens = torch.randint(TOKENS, (20, 7), generator=torch.Generator().manual_seed(0))
        self.splits = {name: tokens_of(tokens) for name in ("train", "validation")}


def tokens_of(tokens):
    from metaopt.tasks import Examples

    return Examples(tokens[:, :-1], tokens[:, 1:])


@pytest.fixture(scope="module")
def tasks():
    digits = load_task("digits")
    return {"MLP": digits, "ConvNet": digits, "GPT": Language(), "TinyVideo": TinyVideos()}


def pair(network, task):
    """A network before and after a change."""
    torch.manual_seed(0)
    before = NETWORKS[network](task)
    after = deepcopy(before)
    with torch.no_grad():
        for tensor in (*after.parameters(), *(each for each in after.buffers() if each.is_floating_point())):
            tensor += 0.1 * torch.randn_like(tensor).abs()
    return before, after


def prepared(tasks, network, name):
    """A probe, a task and both networks."""
    return get_probe(name), tasks[network], *pair(network, tasks[network])


in_each_case = pytest.mark.parametrize(("network", "name"), CASES)


def test_the_cases_are_all_that_apply(tasks):
    found = [
        (network, name)
        for network, build in NETWORKS.items()
        for name in PROBES.table
        if why_not(get_probe(name), build(tasks[network]), tasks[network]) is None
    ]
    assert sorted(found) == sorted(case for case in CASES if case[1] in PROBES.table)


@pytest.mark.parametrize("name", PROBES.names())
def test_each_probe_applies_to_a_network_here_and_says_how_to_read_it(name, tasks):
    reasons = [why_not(get_probe(name), build(tasks[network]), tasks[network]) for network, build in NETWORKS.items()]
    assert None in reasons
    assert all(reason is None or (reason[0].islower() and not reason.endswith(".")) for reason in reasons)
    assert get_probe(name).how_to_read
    assert type(get_probe(name)).__doc__.partition("\n")[0].endswith(".")


@in_each_case
def test_values_are_finite_and_a_change_is_found(network, name, tasks):
    probe, task, before, after = prepared(tasks, network, name)
    result = run_probe(probe, before, after, task, sample_examples(task, "validation", 10))
    assert result.values
    assert all(type(value) is float and math.isfinite(value) for value in result.values.values())
    assert all(row.keys() == result.rows[0].keys() for row in result.rows)
    if name != "dead-units":  # few units of these networks are dead
        same = run_probe(probe, before, deepcopy(before), task, sample_examples(task, "validation", 10))
        assert result.values != same.values
    for draw in result.figures.values():
        assert draw() is not None


@in_each_case
def test_equal_networks_have_not_changed(network, name, tasks):
    probe, task, before, _ = prepared(tasks, network, name)
    values = dict(run_probe(probe, before, deepcopy(before), task, sample_examples(task, "validation", 10)).values)
    for first in [each for each in values if each.endswith("before")]:
        assert values.pop(first) == values.pop(first.removesuffix("before") + "after")
    for value, number in values.items():
        assert number == pytest.approx(1.0 if value.endswith(("ratio", "cosine")) else 0.0, abs=1e-6), value


@in_each_case
def test_nothing_remains_of_a_measurement(network, name, tasks):
    probe, task, before, after = prepared(tasks, network, name)
    for model in (before, after):
        model.train()
        next(model.children()).eval()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
    kept = [deepcopy(model.state_dict()) for model in (before, after)]
    modes = [[module.training for module in model.modules()] for model in (before, after)]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    states = random_states()
    examples = sample_examples(task, "validation", 10)
    inputs = examples.inputs.clone()
    run_probe(probe, before, after, task, examples)
    found = random_states()
    assert found["python"] == states["python"]
    assert torch.equal(found["torch"], states["torch"])
    assert torch.equal(found["numpy"][1], states["numpy"][1])
    assert torch.equal(examples.inputs, inputs)
    for model, state, mode in zip((before, after), kept, modes, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == mode
        assert all(p.requires_grad and torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
        assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert torch.is_grad_enabled()


@in_each_case
def test_it_computes_on_the_device_of_the_network(network, name, tasks, monkeypatch):
    """Tensors have a device and no values: an operation on tensors of two devices raises an error."""
    probe, task, *_ = prepared(tasks, network, name)
    examples, train = sample_examples(task, "validation", 10), task.splits["train"][:2]
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: 1.0)
    monkeypatch.setattr(FakeTensor, "tolist", lambda tensor: np.ones(tensor.shape).tolist())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        before, after = NETWORKS[network](task), NETWORKS[network](task)
        on_device = Batch(*(torch.zeros(each.shape, dtype=each.dtype) for each in examples))
        monkeypatch.setattr(Batch, "to", lambda batch, device: on_device)
        with torch.device("cpu"):
            result = run_probe(probe, before, after, task, on_device)
    assert result.rows
    assert len(train.labels)


def test_examples_are_always_the_same(tasks):
    first, again = (sample_examples(tasks["MLP"], "guard", 7) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert len(sample_examples(tasks["GPT"], "validation", 10**6).labels) == 20


def test_a_module_without_parameters_has_reasons(tasks):
    for name in ("weight-norms", "spectrum", "delta-budgets", "attention-logits", "embedding-drift"):
        assert why_not(get_probe(name), nn.Flatten(), tasks["MLP"]) is not None
