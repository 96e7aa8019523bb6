"""`guard_from`: guards from data of every form, their losses, and what they leave as it was."""

import copy
import random
from collections import UserDict
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

import metaopt
from metaopt.core.errors import InvalidConfig
from metaopt.nowcast import guard_from

from ..small_training import Rows, batch, loss_at, network, nowcast, same_state, train, trained_alone

INPUTS, LABELS = batch(10_000, 200)
CROSS_ENTROPY = nn.functional.cross_entropy


def bound(guard, model, autocast=None):
    from contextlib import nullcontext

    return guard.bound_to(model, autocast or nullcontext)


def losses_of(model, data, loss=CROSS_ENTROPY, **options):
    function = bound(guard_from(data, loss, **options), model)
    function.start(40)
    return function()


def all_losses(model):
    return CROSS_ENTROPY(model(INPUTS), LABELS, reduction="none")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(list(zip(INPUTS, LABELS, strict=True)))


class Dictionary(nn.Module):
    """Takes keywords and returns a loss, as networks of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.layers = network()

    def forward(self, inputs, labels=None):
        logits = self.layers(inputs)
        return {"logits": logits, **({} if labels is None else {"loss": CROSS_ENTROPY(logits, labels)})}


PAIRS = list(zip(INPUTS, LABELS, strict=True))
DATA = {
    "tensors": (INPUTS, LABELS),
    "data set": TensorDataset(INPUTS, LABELS),
    "list": PAIRS,
    "loader": DataLoader(PAIRS, 16, shuffle=True),
    "loader with workers": DataLoader(PAIRS, 16, num_workers=1),
    "loader of tensors": DataLoader(TensorDataset(INPUTS, LABELS), 16),
    "stream": DataLoader(Stream(), 16),
    "iterable data set": Stream(),
    "loader of batches": DataLoader([(INPUTS[i : i + 10], LABELS[i : i + 10]) for i in range(0, 200, 10)], None),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_each_form_of_data_gives_one_loss_per_example(data):
    model = network()
    measured = losses_of(model, data, examples=500)
    assert torch.allclose(measured.sort().values, all_losses(model).sort().values, atol=1e-6)
    some = losses_of(model, data, examples=40)
    assert 40 <= len(some) <= 64
    assert (some[:, None] - all_losses(model)).abs().min(1).values.max() < 1e-6


@pytest.mark.parametrize("name", ["tensors", "list", "loader", "loader of tensors", "loader of batches"])
def test_examples_are_others_at_each_nowcast_and_the_same_within_it(name):
    function = bound(guard_from(DATA[name], CROSS_ENTROPY, examples=40), network())
    seen = []
    for step in (40, 80, 40):
        function.start(step)
        seen.append(function())
        assert torch.equal(function(), seen[-1])
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    function.start(40, fresh=True)
    assert not torch.equal(function(), seen[0])
    function.start(40, share=0.1)
    assert len(function()) < 44


def test_a_sampler_that_chooses_examples_is_kept():
    held_out = DataLoader(PAIRS, 16, sampler=SubsetRandomSampler(range(50, 60)))
    model = network()
    assert torch.allclose(losses_of(model, held_out).sort().values, all_losses(model)[50:60].sort().values, atol=1e-6)


def test_splits_of_a_task_are_data():
    task = metaopt.load_task("digits")
    model = metaopt.get_target_model("MLP", task.model_facts)
    assert losses_of(model, task.splits["guard"], task.losses, examples=50).shape == (50,)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        partial(CROSS_ENTROPY, label_smoothing=0.1),
        lambda outputs, labels: CROSS_ENTROPY(outputs, labels, reduction="none", label_smoothing=0.1),
    ],
)
def test_reduced_losses_are_given_for_each_example(loss):
    model = network()
    expected = CROSS_ENTROPY(model(INPUTS), LABELS, reduction="none", label_smoothing=0.1)
    measured = losses_of(model, (INPUTS, LABELS), loss, examples=200)
    assert torch.allclose(measured.sort().values, expected.sort().values, atol=1e-6)


def test_the_loss_of_a_batch_is_one_number():
    model = network()
    mean = lambda outputs, labels: CROSS_ENTROPY(outputs, labels)  # noqa: E731
    assert losses_of(model, (INPUTS, LABELS), mean, examples=200, batch_size=50).shape == (4,)
    own = losses_of(
        model, (INPUTS, LABELS), None, compute_loss=lambda model, batch: float(mean(model(batch[0]), batch[1]))
    )
    assert own.shape == (7,)


def test_losses_of_pixels_or_tokens_are_averaged_for_each_example():
    model = nn.Linear(4, 4)
    expected = (model(INPUTS) - INPUTS).square().mean(1)
    measured = losses_of(model, INPUTS, nn.MSELoss(), examples=200)
    assert torch.allclose(measured.sort().values, expected.sort().values, atol=1e-6)


def test_dictionaries_go_to_networks_as_keywords():
    model, rows = Dictionary(), Rows(3, 64)
    expected = CROSS_ENTROPY(model(rows.inputs)["logits"], rows.labels, reduction="none")
    assert torch.allclose(losses_of(model, rows).sort().values, expected.sort().values, atol=1e-6)
    columns = {"inputs": rows.inputs, "labels": rows.labels}
    assert torch.allclose(losses_of(model, columns).sort().values, expected.sort().values, atol=1e-6)
    by_network = losses_of(model, rows, None)
    assert by_network.shape == (2,)
    assert torch.allclose(by_network.mean(), expected.mean(), atol=1e-6)


def test_a_network_may_return_outputs_and_loss():
    class Pair(Dictionary):
        def forward(self, inputs, labels):
            results = super().forward(inputs, labels)
            return results["logits"], results["loss"]

    assert losses_of(Pair(), (INPUTS, LABELS), None).shape == (7,)


def test_dictionaries_of_other_kinds_move_by_their_own_method():
    class Encoding(UserDict):
        moved = 0

        def to(self, device):
            Encoding.moved += 1
            return self

    def collate(rows):
        return Encoding(zip(("inputs", "labels"), map(torch.stack, zip(*rows, strict=True)), strict=True))

    assert losses_of(Dictionary(), DataLoader(PAIRS, 50, collate_fn=collate)).shape == (200,)
    assert Encoding.moved == 4


def test_it_runs_in_evaluation_mode_under_the_autocast_of_the_training_and_draws_nothing():
    seen, dropout = [], nn.Dropout(0.5)
    model = network(dropout)
    model[0].register_forward_hook(lambda layer, _, outputs: seen.append((layer.training, outputs.dtype)))

    def loss(outputs, labels):
        return CROSS_ENTROPY(outputs.float(), labels, reduction="none") + torch.rand(len(labels)) + random.random()

    def run(guard):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        optimizer = nowcast(model := copy.deepcopy(start), "Hold", guard=guard)
        for step in range(8):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step < 4):
                loss_at(model, step).backward()
            optimizer.step()
        return model, optimizer, (random.random(), np.random.rand(), float(torch.rand(())))

    start = model
    data = DataLoader(PAIRS, 16, shuffle=True)  # draws a number when it is opened
    model, optimizer, numbers = run(guard_from(data, loss, examples=32))
    assert [event.loss_before for event in optimizer.events] == [event.loss_after for event in optimizer.events]
    assert {each for each in seen if not each[0]} == {(False, torch.bfloat16), (False, torch.float32)}
    assert [each[1] for each in seen if not each[0]][:2] == [torch.bfloat16] * 2
    assert all(module.training for module in model.modules())
    alone, _, same_numbers = run(None)
    assert numbers == same_numbers
    assert same_state(model, alone)


def test_one_guard_serves_several_trainings():
    guard = guard_from((INPUTS, LABELS), CROSS_ENTROPY)
    for model in (network(), network(nn.Tanh())):
        train(model, optimizer := nowcast(model, guard=guard), range(8))
        assert len(optimizer.events) == 2
        assert optimizer.events[0].loss_before < 2


def test_the_hook_leaves_with_the_optimizer_and_does_not_reach_copies():
    model = network()
    optimizer = nowcast(model, guard=guard_from((INPUTS, LABELS), CROSS_ENTROPY))
    assert len(model._forward_pre_hooks) == 1
    model(INPUTS.requires_grad_() * 1)
    INPUTS.requires_grad_(False)
    copied = copy.deepcopy(model)
    copied(INPUTS)
    assert same_state(copied, model)
    del optimizer
    import gc

    gc.collect()
    assert not model._forward_pre_hooks


def test_a_compiled_network_is_not_compiled_again():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    model = network()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    optimizer = nowcast(compiled, base=torch.optim.Adam(model.parameters()), guard=guard_from(PAIRS, CROSS_ENTROPY))
    train(compiled, optimizer, range(9))
    assert len(optimizer.events) == 2
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([], {}, r"held-out data \(list\) is empty"),
        (torch.empty(0, 4), {}, "is empty"),
        (3, {}, "held-out data is 3; expected a DataLoader"),
        (iter(PAIRS), {}, "can be read only once"),
        ((INPUTS, LABELS[:5]), {}, "2 tensors with 5, 200 rows"),
        (nn.Linear(2, 2), {}, "first argument of guard_from is a network, Linear"),
        (PAIRS, {"examples": 0}, "examples of guard_from is 0"),
        (PAIRS, {"examples": 2.5}, "examples of guard_from is 2.5"),
        (PAIRS, {"batch_size": True}, "batch_size of guard_from is True"),
        (PAIRS, {"compute_loss": CROSS_ENTROPY}, "loss and compute_loss; give one"),
    ],
)
def test_what_is_no_data_is_refused_when_it_is_given(data, options, message):
    with pytest.raises(InvalidConfig, match=message):
        guard_from(data, CROSS_ENTROPY, **options)
    with pytest.raises(InvalidConfig, match="loss of guard_from is 'mse'; expected a function"):
        guard_from(PAIRS, "mse")


@pytest.mark.parametrize(
    ("data", "loss", "message"),
    [
        ([INPUTS[0]] * 9, CROSS_ENTROPY, r"cannot compute the loss of Sequential on a tensor of shape \[9, 4\]: "),
        ([(INPUTS[0],)] * 9, CROSS_ENTROPY, "a batch of the guard is a list of 1; expected inputs and labels"),
        ([{"inputs": INPUTS[0]}] * 9, CROSS_ENTROPY, "entries inputs; expected one of labels"),
        (INPUTS, None, r"network of the guard returned a tensor of shape \[32, 3\]; expected its loss"),
        (PAIRS, lambda outputs, labels: labels, "torch.int64; expected one number"),
        (DataLoader(Stream(), 16, drop_last=True), lambda outputs, labels: None, "is None; expected one number"),
    ],
)
def test_what_is_no_loss_is_named_at_the_first_nowcast(data, loss, message):
    model = network()
    with pytest.raises(InvalidConfig, match=message):
        train(model, nowcast(model, "Hold", guard=guard_from(data, loss)), range(4))
    assert same_state(model, trained_alone(4))
