"""Headers of any safetensors file: read in little time and memory, or refused with the reason."""

import json
import time
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from metaopt.core.errors import FileFormatError
from metaopt.weights import safetensors_header
from metaopt.weights.safetensors_header import BITS, MAX_TENSORS, entries, read_safetensors_header

from ..wan_files import with_length


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def read(path):
    return entries(path, read_safetensors_header(path).listed)


def entry(start, stop, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


def write(path, listed, size):
    """A file with a header, as JSON or as a text, and `size` bytes of tensors."""
    text = listed if isinstance(listed, str | bytes) else json.dumps(listed)
    path.write_bytes(with_length(text) + bytes(size))


def test_it_has_what_safetensors_wrote(path):
    tensors = {"a": torch.ones(2, 3), "b": torch.tensor(1.0, dtype=torch.bfloat16), "c": torch.zeros(0, 4).bool()}
    save_file(tensors, path, metadata={"format": "pt"})
    found = read(path)
    assert {name: (each.shape, each.dtype) for name, each in found.items()} == {
        "a": ((2, 3), "F32"),
        "b": ((), "BF16"),
        "c": ((0, 4), "BOOL"),
    }
    assert {name: (each.size, each.nbytes) for name, each in found.items()} == {"a": (6, 24), "b": (1, 2), "c": (0, 0)}
    assert read_safetensors_header(path).metadata == {"format": "pt"}


@pytest.mark.parametrize("dtype", BITS)
def test_it_knows_the_size_of_each_dtype(path, dtype):
    write(path, {"w": entry(0, BITS[dtype], [8], dtype)}, BITS[dtype])
    assert read(path)["w"].nbytes == BITS[dtype]


def test_an_empty_tensor_may_lie_between_others(path):
    write(path, {"c": entry(4, 8), "empty": entry(4, 4, [0, 3]), "a": entry(0, 4)}, 8)
    assert list(read(path)) == ["a", "empty", "c"]


ONE = json.dumps(entry(0, 4))
WRONG = {
    "overlapping": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "'b' of shape"),
    "the same bytes twice": ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "'b' of shape"),
    "a gap": ({"a": entry(0, 4), "b": entry(6, 8)}, 8, "'b' of shape"),
    "more bytes than its shape": ({"a": entry(0, 8, [7])}, 8, "'a' of shape"),
    "more bytes than the file": ({"a": entry(0, 10**15)}, 8, "other tensors than those in its 8 bytes"),
    "bytes that no tensor has": ({"a": entry(0, 4)}, 8, "other tensors than those in its 8 bytes"),
    "a negative length": ({"a": entry(0, 4, [-2, -2])}, 4, "has the shape"),
    "a length that is no integer": ({"a": entry(0, 4, [4.0])}, 4, "has the shape"),
    "a length that is a truth value": ({"a": entry(0, 1, [True])}, 1, "has the shape"),
    "offsets that are no integers": ({"a": entry(0, 4.0, [4])}, 4, "'a' of shape"),
    "a thousand dimensions": ({"a": entry(0, 1, [1] * 1000)}, 1, "has the shape"),
    "an unknown dtype": ({"a": entry(0, 4, dtype="F128")}, 4, "F128"),
    "half a byte": ({"a": entry(0, 1, [3], "F4")}, 1, "'a' of shape"),
    "a name twice": (f'{{"a": {ONE}, "a": {ONE}}}', 4, "'a' twice"),
    "offsets twice": ('{"a": {"dtype": "U8", "shape": [1], "shape": [1], "data_offsets": [0, 1]}}', 1, "'shape' twice"),
    "a name that is no text": (f'{{"\\ud800": {ONE}}}', 4, "surrogates"),
    "a list": ("[]", 0, "not safetensors"),
    "no JSON": ("{]", 0, "not safetensors"),
    "deep JSON": ('{"a": ' + "[" * 100_000, 0, "not safetensors"),
    "a number of a million digits": ('{"a": ' + "9" * 1_000_000 + "}", 0, "not safetensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_list_of_tensors_is_refused(path, name):
    listed, size, message = WRONG[name]
    write(path, listed, size)
    with pytest.raises(FileFormatError, match=message):
        read(path)


@pytest.mark.parametrize("length", [100, 2**40, 2**64 - 1, 1, 0])
def test_a_header_that_is_longer_than_the_file_is_refused_before_it_is_read(path, length):
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(FileFormatError, match=f"a header of {length} bytes in a file of 10"):
        read(path)


def test_a_header_beyond_the_limit_is_refused_before_it_is_read(path, monkeypatch):
    with path.open("wb") as file:
        file.write((2**33).to_bytes(8, "little") + b"{")
        file.truncate(2**34)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="a header of 8,589,934,592 bytes; expected at most"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_too_many_tensors_are_refused(path, monkeypatch):
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 2)
    write(path, {name: entry(0, 0, [0]) for name in "abc"}, 0)
    with pytest.raises(FileFormatError, match="lists 3 tensors; expected at most 2"):
        read(path)
    assert MAX_TENSORS == 100_000


def test_a_name_that_is_repeated_after_many_others_is_found_quickly(path):
    many = "".join(f'"{number}": {{}}, ' for number in range(50_000))
    write(path, f'{{{many} "0": {{}}}}', 0)
    start = time.process_time()
    with pytest.raises(FileFormatError, match="'0' twice"):
        read(path)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"(dp0\n.", b"GGUF" + b"\x00" * 50])
def test_a_file_with_the_ending_of_a_pickle_is_refused_with_the_reason(tmp_path, ending, content):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises(
        FileFormatError, match=f"a {ending} file is mostly a pickle, which can run any code when loaded"
    ):
        read(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_is_refused_whatever_its_name(path, legacy):
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileFormatError, match="is a pickle"):
        read(path)
