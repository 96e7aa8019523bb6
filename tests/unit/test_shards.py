"""A file in shards behaves as one file: atomic, verified, and without remains."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaopt.core.errors import FileFormatError, StorageError
from metaopt.weights import files
from metaopt.weights.files import (
    files_of,
    kind_of,
    read_digest,
    read_facts,
    read_tensors,
    remove_file,
    write_tensors,
)
from metaopt.weights.model_files import load_model_weights
from metaopt.weights.shards import divide

TENSORS = {name: torch.arange(10.0) + number for number, name in enumerate("abcde")}  # 40 bytes each
FACTS = {"step": 3}


@pytest.fixture
def path(tmp_path) -> Path:
    """A file of five tensors in three shards."""
    path = tmp_path / "w.safetensors"
    write_tensors(path, TENSORS, "weights", FACTS, shard_size=80)
    return path


def same(read: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in read)


def test_a_file_and_its_shards_are_read_as_one(path):
    tensors, facts = read_tensors(path, "weights")
    assert same(tensors, TENSORS)
    assert facts == read_facts(path, "weights") == FACTS
    assert kind_of(path) == "weights"
    assert [len(read_tensors(shard, "shard")[0]) for shard in files_of(path)[1:]] == [2, 2, 1]
    assert all(shard.name.startswith(f"shard_{read_digest(shard, 'shard')[:8]}_0000") for shard in files_of(path)[1:])
    assert {*files_of(path)} == {*path.parent.iterdir()}


def test_model_weights_load_from_shards(tmp_path):
    model, other = nn.Linear(4, 4), nn.Linear(4, 4)
    write_tensors(tmp_path / "w", dict(model.named_parameters()), "weights", {}, shard_size=8)
    load_model_weights(other, tmp_path / "w")
    assert same(other.state_dict(), model.state_dict())


def test_tensors_are_assigned_to_shards_in_order_of_their_names():
    tensors = {"d": torch.zeros(3), "b": torch.zeros(9), "a": torch.zeros(1), "c": torch.zeros(0), "e": torch.zeros(1)}
    assert [[*part] for part in divide(tensors, 16)] == [["a"], ["b"], ["c", "d", "e"]]
    assert [[*part] for part in divide(tensors, 56)] == [["a", "b", "c", "d", "e"]]
    assert [[*part] for part in divide({"x": torch.zeros(9)}, 1)] == [["x"]]
    assert divide({}, 1) == [{}]


def test_small_tensors_need_no_shards(tmp_path):
    write_tensors(tmp_path / "whole", TENSORS, "weights", FACTS)
    write_tensors(tmp_path / "fits", TENSORS, "weights", FACTS, shard_size=200)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "fits").read_bytes()
    assert files_of(tmp_path / "fits") == [tmp_path / "fits"]


@pytest.mark.parametrize("size", [40, 120, 1000])
def test_another_size_leaves_no_shard_of_the_older_file(path, size):
    write_tensors(path, TENSORS, "weights", {"step": 4}, shard_size=size)
    assert same(read_tensors(path, "weights")[0], TENSORS)
    assert {*files_of(path)} == {*path.parent.iterdir()}


def test_shards_of_other_files_are_left_alone(path):
    other = path.with_name(f"x_{path.name}")
    write_tensors(other, TENSORS, "weights", {}, shard_size=80)
    nested = path.with_name(files_of(path)[1].name.replace("_w.", "_shard_00000000_00001_of_00001_w."))
    write_tensors(nested, {}, "weights", {})
    remove_file(path)
    assert {*path.parent.iterdir()} == {*files_of(other), nested}


def test_removing_a_missing_file_is_no_error(tmp_path):
    remove_file(tmp_path / "none")


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_shard_is_named(path, verify):
    shard = files_of(path)[2]
    shard.unlink()
    with pytest.raises(FileFormatError, match=shard.name):
        read_tensors(path, "weights", verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_an_exchanged_shard_is_named(path, verify):
    _, first, second, _ = files_of(path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(FileFormatError, match=f"{second.name} is not the shard"):
        read_tensors(path, "weights", verify=verify)


def test_a_file_of_another_kind_in_place_of_a_shard_is_rejected(path):
    shard = files_of(path)[1]
    write_tensors(shard, {"a": torch.zeros(10)}, "weights", {})
    with pytest.raises(FileFormatError, match="is a weights file; expected a shard file"):
        read_tensors(path, "weights")


def test_damage_in_a_shard_is_detected(path):
    shard = files_of(path)[3]
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(FileFormatError, match=f"{shard.name} is damaged"):
        read_tensors(path, "weights")


def test_a_tensor_in_two_shards_is_rejected(path):
    digest = files._write_shard(path, {"a": torch.zeros(1)}, 1, 2), files._write_shard(path, {"a": torch.ones(1)}, 2, 2)
    files._write(path, {}, files._header({}, {"kind": "weights", "facts": {}, "shards": list(digest)}))
    with pytest.raises(FileFormatError, match="is stored twice"):
        read_tensors(path, "weights")


HOSTILE = {
    "a path": ["../../../../etc/passwd"],
    "a path of the right length": ["../" * 21 + "x"],
    "a slash in a digest": ["a/" + "b" * 62],
    "no list": "a" * 64,
    "a count": 10**12,
    "an object": {"0": "a" * 64},
    "numbers": [7],
    "nothing": None,
    "line break": ["a" * 64 + "\n"],
}


@pytest.mark.parametrize("shards", HOSTILE.values(), ids=HOSTILE)
def test_a_header_cannot_name_other_files(path, shards):
    files._write(path, {}, files._header({}, {"kind": "weights", "facts": {}, "shards": shards}))
    for read in (files_of, kind_of, lambda path: read_tensors(path, "weights", verify=False)):
        with pytest.raises(FileFormatError, match="list of shards"):
            read(path)


def test_a_header_with_too_many_shards_fails_at_the_first(path):
    files._write(path, {}, files._header({}, {"kind": "weights", "facts": {}, "shards": ["a" * 64] * 90_000}))
    with pytest.raises(FileFormatError, match="shard_aaaaaaaa_00001_of_90000"):
        read_tensors(path, "weights")


def test_a_shard_cannot_have_shards(path):
    digest = files._write_shard(path, {}, 1, 1)
    shard = files.shard_path(path, digest, 1, 1)
    inner = files._header({}, {"kind": "shard", "facts": {}, "shards": [digest]})
    save_file({}, shard, metadata={"metaopt": json.dumps(inner, sort_keys=True, separators=(",", ":"))})
    files._write(path, {}, files._header({}, {"kind": "weights", "facts": {}, "shards": [digest]}))
    with pytest.raises(FileFormatError, match="is not the shard"):
        read_tensors(path, "weights")


@pytest.mark.parametrize("files_before", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_older_file_and_no_remains(path, monkeypatch, files_before):
    before = {found: found.read_bytes() for found in path.parent.iterdir()}
    written = []

    def full(tensors, place, metadata):
        if len(written) == files_before:
            raise OSError("No space left on device")
        written.append(place)
        save_file(tensors, place, metadata=metadata)

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        write_tensors(path, {**TENSORS, "c": torch.ones(10)}, "weights", {"step": 4}, shard_size=80)
    assert before == {found: found.read_bytes() for found in path.parent.iterdir()}


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from metaopt.weights.files import write_tensors
left, replace = int(sys.argv[2]), Path.replace
def replace_or_die(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = replace_or_die
write_tensors(Path(sys.argv[1]), {name: torch.ones(10) for name in "abcde"}, "weights", {"step": 4}, shard_size=80)
"""


@pytest.mark.parametrize("files_before", [1, 3])
def test_a_process_killed_before_the_file_is_replaced_leaves_the_older_one(path, files_before):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(files_before)])
    assert done.returncode == -signal.SIGKILL
    assert len(list(path.parent.glob("shard_*"))) == 3 + files_before
    tensors, facts = read_tensors(path, "weights")
    assert same(tensors, TENSORS)
    assert facts == FACTS
    write_tensors(path, TENSORS, "weights", {"step": 5}, shard_size=80)
    assert {*files_of(path)} == {found for found in path.parent.iterdir() if found.suffix != ".part"}
