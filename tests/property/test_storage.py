"""Files, checkpoints and configurations return what was written, and any damage is detected."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaopt.core.config import Config, Options, Range, option, read_config_file
from metaopt.core.errors import FileFormatError
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint
from metaopt.weights.files import files_of, read_tensors, write_tensors
from metaopt.weights.layout import Layout, WeightTensor

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randint(0, 200, shape, generator=random).to(draw(st.sampled_from(DTYPES)))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.text("ab/'0é\x1b\"", min_size=1, max_size=4)
trees = st.recursive(
    scalars | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names | st.integers(-3, 12), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one, other) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            type(mine) is type(theirs) and same(one[mine], other[theirs])
            for mine, theirs in zip(one, other, strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


@QUICK
@given(state=st.dictionaries(names, trees, max_size=3), facts=st.dictionaries(st.text("xyz"), scalars, max_size=2))
def test_a_loaded_checkpoint_equals_the_saved_state(tmp_path: Path, state, facts):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, state, facts)
    read, read_facts = load_checkpoint(path)
    assert same(read, state)
    assert same(dict(sorted(read_facts.items())), dict(sorted(facts.items())))


@QUICK
@given(shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4))
def test_a_layout_restores_tensors_and_itself(shapes):
    layout = Layout(tuple(WeightTensor(f"w{i}", tuple(shape), "float32") for i, shape in enumerate(shapes)))
    assert Layout.from_list(json.loads(json.dumps(layout.to_list()))) == layout
    flat = torch.randn(layout.size)
    assert torch.equal(layout.flatten(layout.unflatten(flat)), flat)
    assert torch.equal(torch.cat(list(layout.split(flat))), flat)


FACTS = {"lr": 1e-05, "third": 0.30000000000000004, "name": "é\x1b", "big": 1e22, "none": None}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("files") / "small.safetensors"
    write_tensors(path, {"w": torch.arange(5.0), "é": torch.tensor(3), "flag": torch.tensor([True])}, "weights", FACTS)
    return path


@pytest.fixture(scope="module")
def divided_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("files") / "divided.safetensors"
    write_tensors(path, {"w": torch.arange(3.0), "flag": torch.tensor([True])}, "weights", FACTS, shard_size=4)
    return path


def test_every_flipped_bit_is_detected(small_file: Path, tmp_path: Path):
    whole, path = small_file.read_bytes(), tmp_path / "flipped.safetensors"
    for position in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError):
            read_tensors(path, "weights")


def test_every_flipped_bit_in_the_file_and_its_shards_is_detected(divided_file: Path):
    for path in files_of(divided_file):
        whole = path.read_bytes()
        for position in range(len(whole) * 8):
            damaged = bytearray(whole)
            damaged[position // 8] ^= 1 << position % 8
            path.write_bytes(damaged)
            with pytest.raises(FileFormatError):
                read_tensors(divided_file, "weights")
        path.write_bytes(whole)
    read_tensors(divided_file, "weights")


def test_every_truncation_is_detected(small_file: Path, tmp_path: Path):
    whole, path = small_file.read_bytes(), tmp_path / "short.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            read_tensors(path, "weights")


@QUICK
@given(state=st.dictionaries(names, tensors(), max_size=6), size=st.integers(0, 200))
def test_a_file_returns_its_tensors_from_any_number_of_shards(tmp_path: Path, state, size):
    path = tmp_path / "divided.safetensors"
    write_tensors(path, state, "weights", {}, shard_size=size)
    read, _ = read_tensors(path, "weights")
    assert same(dict(sorted(read.items())), dict(sorted(state.items())))
    assert {*files_of(path)} == {*tmp_path.iterdir()}


class Settings(Config):
    count: int = option(default=1, help="A count.")
    rate: Range = option(default=Range(1e-3, 1e-3), help="A rate.", above=0.0)
    widths: tuple[int, ...] = option(default=(1, 2), help="Widths.")
    folder: Path | None = option(default=None, help="A folder.")
    further: Options = option(default={}, help="Anything.")
    on: bool = option(default=False, help="A switch.")


whole = st.integers(-(2**63) + 1, 2**63 - 1)
positive = st.floats(1e-30, 1e30)
plain = whole | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text("abc=é", max_size=5)


@QUICK
@given(
    values=st.builds(
        Settings,
        count=whole,
        rate=st.tuples(positive, positive).map(lambda pair: Range(*sorted(pair))),
        widths=st.lists(whole).map(tuple),
        folder=st.none() | st.sampled_from([Path("data"), Path("a/b c")]),
        further=st.dictionaries(st.text("abc", min_size=1), plain, max_size=3),
        on=st.booleans(),
    )
)
def test_a_configuration_is_restored_from_its_file(tmp_path: Path, values: Settings):
    assert Settings.from_mapping(json.loads(values.to_json())) == values
    path = tmp_path / "config.json"
    path.write_text(values.to_json(), encoding="utf-8")
    assert Settings.from_mapping(read_config_file(path)) == values
