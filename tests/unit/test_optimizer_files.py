"""Optimizer files: round trips, versions, and errors for damaged or other files."""

import logging

import pytest
import torch

from metaopt.core.errors import FileFormatError
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import load_optimizer_file, optimizer_facts, save_optimizer
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.weights.files import read_facts, write_tensors

SMALL = {"dim": 8, "num_latents": 4, "latent_dim": 8, "hidden": 8}


@pytest.fixture
def optimizer():
    return get_optimizer_model("PerceiverOptimizer", **SMALL)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optimizer.safetensors"


def test_a_file_contains_the_given_facts_and_the_description_of_the_optimizer(optimizer, path):
    save_optimizer(optimizer, path, {"learned": ["cnn/seed_0"], "optimizer": "not this"})
    facts = read_facts(path, "optimizer")
    assert facts["learned"] == ["cnn/seed_0"]
    assert facts["optimizer"]["name"] == "PerceiverOptimizer"
    assert facts["optimizer"]["config"]["dim"] == 8
    assert facts["optimizer"]["perceiver_pytorch"]


@pytest.mark.parametrize("name", ["HopeOptimizer", "Line", "Slopes"])
def test_an_optimizer_without_a_perceiver_states_no_version_of_it(name, path, caplog):
    save_optimizer(get_optimizer_model(name), path)
    assert "perceiver_pytorch" not in read_facts(path, "optimizer")["optimizer"]
    with caplog.at_level(logging.WARNING):
        load_optimizer_file(path)
    assert not caplog.records


def test_a_loaded_optimizer_is_in_evaluation_mode_without_gradients(optimizer, path):
    save_optimizer(optimizer, path)
    loaded = load_optimizer_file(path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        loaded.coefficients.weight.fill_(1)  # its weights are copies, not views of the file
    assert not load_optimizer_file(path).coefficients.weight.any()


def test_an_existing_file_is_kept_when_writing_fails(optimizer, path):
    save_optimizer(optimizer, path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_optimizer(optimizer, path, {"facts": {1, 2}})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_another_version_of_perceiver_pytorch_gives_a_warning(optimizer, path, caplog):
    facts = {**optimizer_facts(optimizer), "perceiver_pytorch": "0.9.0"}
    write_tensors(path, optimizer.state_dict(), "optimizer", {"optimizer": facts})
    with caplog.at_level(logging.WARNING):
        load_optimizer_file(path)
    assert "written with perceiver-pytorch 0.9.0" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "PerceiverOptimiser"}, "did you mean PerceiverOptimizer"),
        ({"config": {"dims": 8}}, "did you mean dim"),
        ({"config": {**SMALL, "dim": 16}}, r"shape \(8, 40\), PerceiverOptimizer expects \(16, 40\)"),
        ({"config": {**SMALL, "dim": "wide"}}, "dim is 'wide'"),
        ({"config": 3}, "its config is 3; expected names and values"),
        ({"name": ["Hold"]}, r"its name is \['Hold'\]; expected text"),
        ({"name": "Hold", "config": {}}, "Hold has no '"),
    ],
)
def test_a_description_that_does_not_match_is_an_error(optimizer, path, change, message):
    facts = {**optimizer_facts(optimizer), **change}
    write_tensors(path, optimizer.state_dict(), "optimizer", {"optimizer": facts})
    with pytest.raises(FileFormatError, match=message):
        load_optimizer_file(path)


@pytest.mark.parametrize("facts", [{}, {"optimizer": 3}, {"optimizer": {}}])
@pytest.mark.parametrize("kind", ["optimizer", "checkpoint"])
def test_a_file_without_a_description_is_an_error(path, facts, kind):
    write_tensors(path, {}, kind, {**facts, "state": {"dict": []}})
    with pytest.raises(FileFormatError, match=str(path)):
        load_optimizer_file(path)


def test_a_missing_or_additional_tensor_is_an_error(optimizer, path):
    tensors, facts = optimizer.state_dict(), {"optimizer": optimizer_facts(optimizer)}
    for changed in ({**tensors, "more": torch.zeros(1)}, dict(list(tensors.items())[1:])):
        write_tensors(path, changed, "optimizer", facts)
        with pytest.raises(FileFormatError, match="has no '"):
            load_optimizer_file(path)


def test_other_kinds_of_files_are_errors(tmp_path, path):
    save_checkpoint(path, {"model": {"w": torch.zeros(1)}}, {"run": {}})
    with pytest.raises(FileFormatError, match="describes no optimizer; expected an optimizer or a checkpoint"):
        load_optimizer_file(path)
    write_tensors(path, {"w": torch.zeros(1)}, "snapshot", {})
    with pytest.raises(FileFormatError, match="is a snapshot file; expected an optimizer or a checkpoint of phase 2"):
        load_optimizer_file(path)
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(FileFormatError, match="is a pickle"):
        load_optimizer_file(path)
    with pytest.raises(FileFormatError, match="cannot read"):
        load_optimizer_file(tmp_path / "none")


def test_a_flipped_bit_is_an_error(optimizer, path):
    save_optimizer(optimizer, path)
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FileFormatError, match="is damaged"):
        load_optimizer_file(path)
