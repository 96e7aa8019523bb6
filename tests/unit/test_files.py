"""Files are written atomically, verified on reading and never unpickled."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaopt.core.errors import FileFormatError, LayoutMismatch
from metaopt.weights import files, model_files
from metaopt.weights.files import (
    kind_of,
    read_facts,
    read_tensors,
    write_tensors,
)
from metaopt.weights.model_files import load_model_weights, save_model_weights


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_tensors_that_share_memory_are_stored_separately(path):
    whole = torch.arange(6.0)
    write_tensors(
        path, {"whole": whole, "same": whole, "part": whole[2:4], "turned": whole.view(2, 3).T}, "weights", {}
    )
    read, _ = read_tensors(path, "weights")
    assert torch.equal(read["part"], whole[2:4])
    assert torch.equal(read["turned"], whole.view(2, 3).T)


def test_the_same_contents_give_the_same_bytes(path, tmp_path):
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    write_tensors(path, tensors, "weights", {"x": 1, "y": {"2": 1, "10": 2}})
    other = tmp_path / "other.safetensors"
    write_tensors(other, dict(reversed(tensors.items())), "weights", {"y": {"10": 2, "2": 1}, "x": 1})
    assert path.read_bytes() == other.read_bytes()


def test_facts_with_integer_keys_can_be_read(path):
    write_tensors(path, {"a": torch.ones(1)}, "weights", {"by_layer": {10: "x", 2: "y"}})
    assert read_tensors(path, "weights")[1] == {"by_layer": {"10": "x", "2": "y"}}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_is_rejected_and_never_loaded(path, legacy):
    torch.save({"w": Malicious()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileFormatError, match="is a pickle"):
        read_tensors(path, "weights")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_of_any_protocol_is_rejected_and_never_loaded(path, protocol):
    path.write_bytes(pickle.dumps(Malicious(), protocol))
    with pytest.raises(FileFormatError):
        read_tensors(path, "weights")


@pytest.mark.parametrize("contents", [b"", b"x", b"\0" * 8, b"\0" * 64, b"\xff" * 64, b"not safetensors at all"])
def test_other_bytes_are_rejected(path, contents):
    path.write_bytes(contents)
    with pytest.raises(FileFormatError):
        read_tensors(path, "weights")


def test_a_missing_file_and_a_folder_are_rejected(path, tmp_path):
    for place in (path, tmp_path):
        with pytest.raises(FileFormatError, match="cannot read"):
            read_tensors(place, "weights")


def test_foreign_safetensors_and_other_kinds_and_schemas_are_rejected(path, monkeypatch):
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(FileFormatError, match="no metaopt header"):
        kind_of(path)
    write_tensors(path, {"w": torch.ones(2)}, "snapshot", {})
    with pytest.raises(FileFormatError, match="is a snapshot file; expected a checkpoint file"):
        read_tensors(path, "checkpoint")
    monkeypatch.setattr("metaopt.weights.header.SCHEMA", 2)
    with pytest.raises(FileFormatError, match="schema 1"):
        read_facts(path, "snapshot")


def test_verification_can_be_skipped(path):
    write_tensors(path, {"w": torch.ones(1000)}, "weights", {})
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    read_tensors(path, "weights", verify=False)
    with pytest.raises(FileFormatError, match="sha256"):
        read_tensors(path, "weights")


def test_saved_model_weights_and_buffers_load(path):
    model, other = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    model(torch.randn(8, 2))
    save_model_weights(model, str(path))
    load_model_weights(other, str(path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_weights_of_another_shape_or_name_leave_the_network_unchanged(path):
    save_model_weights(nn.Linear(2, 3), path)
    for model in (nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 3)), nn.Linear(2, 3, bias=False)):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(LayoutMismatch, match="does not fit"):
            load_model_weights(model, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["load_model_weights", "save_model_weights"])
def test_the_old_place_of_a_function_is_deprecated(name):
    with pytest.warns(DeprecationWarning, match=f"metaopt.weights.model_files.{name}"):
        assert getattr(files, name) is getattr(model_files, name)
