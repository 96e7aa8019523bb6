"""Checkpoints store a nested state; those of other trainings are rejected."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import CheckpointError, FileFormatError
from metaopt.trajectories.checkpoint import expect_same, load_checkpoint, save_checkpoint
from metaopt.weights.files import read_tensors, write_tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def test_tensors_are_stored_under_their_paths(path):
    save_checkpoint(
        path, {"averaged": nn.Linear(2, 1).state_dict(), "o": {"state": {0: {"step": torch.tensor(1.0)}}}}, {}
    )
    assert set(read_tensors(path, "checkpoint")[0]) == {"averaged/weight", "averaged/bias", "o/state/0/step"}


def test_a_restored_optimizer_continues_exactly(path):
    model = nn.Linear(3, 2)
    for kind in (torch.optim.Adam, torch.optim.SGD, torch.optim.LBFGS):
        optimizer, inputs = kind(model.parameters(), lr=0.1), torch.randn(4, 3)

        def step(optimizer=optimizer, inputs=inputs):
            optimizer.zero_grad()
            loss = model(inputs).square().sum()
            loss.backward()
            return loss.item()

        optimizer.step(step)
        save_checkpoint(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, {})
        optimizer.step(step)
        expected = model.weight.detach().clone()
        state, _ = load_checkpoint(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        optimizer.step(step)
        assert torch.equal(model.weight, expected)


def test_changing_a_loaded_state_does_not_change_the_file(path):
    save_checkpoint(path, {"w": torch.zeros(3)}, {})
    load_checkpoint(path)[0]["w"].fill_(1)
    assert torch.equal(load_checkpoint(path)[0]["w"], torch.zeros(3))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [{"b": {1, 2}}]}, "a/0/b is a set"),
        ({"a": {(1, 2): 3}}, "a has the key"),
        ({True: 1}, "the state has the key"),
    ],
)
def test_unsupported_states_are_rejected_and_the_older_file_is_kept(path, state, message):
    save_checkpoint(path, {"epoch": 1}, {})
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(path, state, {})
    assert load_checkpoint(path) == ({"epoch": 1}, {})


@pytest.mark.parametrize("skeleton", [{}, {"dict": 3}, {"tensor": "none"}, {"other": []}, {"dict": [["a"]]}])
def test_an_invalid_skeleton_is_rejected(path, skeleton):
    write_tensors(path, {}, "checkpoint", {"state": skeleton})
    with pytest.raises(FileFormatError, match="invalid description of its state"):
        load_checkpoint(path)


def test_a_file_of_another_kind_is_rejected(path):
    write_tensors(path, {}, "snapshot", {})
    with pytest.raises(FileFormatError, match="is a snapshot file; expected a checkpoint"):
        load_checkpoint(path)


def test_the_message_names_the_field_that_differs(path):
    facts = {"run": {"lr": 0.1, "widths": [1, 2], "model": "MLP"}, "written": "elsewhere"}
    expect_same(facts, {"run": {"lr": 0.1, "widths": (1, 2)}}, path)
    for changed, message in [
        ({"run": {"lr": 0.2}}, r"run\.lr is 0\.1, expected 0\.2"),
        ({"run": {"widths": [1]}}, r"run\.widths is \[1, 2\], expected \[1\]"),
        ({"task": "digits"}, r"task is None, expected 'digits'"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            expect_same(facts, changed, path)
