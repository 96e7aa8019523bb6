"""The inspector: networks in files and folders, told from headers alone; the real lists of Wan 2.2."""

import csv
import io
import json
import time
import tracemalloc
from pathlib import Path

import pytest
import torch

from metaopt.core.documents import csv_text
from metaopt.core.errors import FileFormatError, InvalidConfig
from metaopt.diagnostics.inspector import Inspection, blocks_of, inspect_files
from metaopt.diagnostics.inspector.report import notes, report_of, terminal_text
from metaopt.diagnostics.inspector.tables import facts, keys_rows, shapes_rows
from metaopt.weights import weight_files as inspected_files
from metaopt.weights.files import write_tensors

from ..wan_files import I2V_A14B, T2V_A14B, TI2V_5B, TINY, with_length, write_sharded, write_sparse

GOLDEN = Path(__file__).parents[1] / "golden"


def inspect(path, **choice) -> Inspection:
    return inspect_files(path, path.name, **choice)


def names(inspection) -> list[str]:
    return [network.name for network in inspection.networks]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def whole(folder):
    """The 5B network in one file of its full size, 20 GB, which takes 100 kB on the disk."""
    return write_sparse(folder / "ti2v_5B.safetensors", TI2V_5B.original())


@pytest.fixture(scope="module")
def of_diffusers(folder):
    return write_sparse(folder / "ti2v_5B_diffusers.safetensors", TI2V_5B.of_diffusers(), "BF16", format="pt")


@pytest.fixture(scope="module")
def experts(folder):
    """The two experts of the A14B network, as the public folder has them."""
    place = folder / "Wan2.2-T2V-A14B"
    for expert in ("high", "low"):
        write_sharded(place / f"{expert}_noise_model", T2V_A14B.original(), 6)
    (place / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04")
    return place


def test_a_network_of_20_gb_takes_milliseconds_and_little_memory(whole):
    assert whole.stat().st_size > 19.9e9
    inspect(whole)
    tracemalloc.start()
    start = time.process_time()
    report_of(inspect(whole), {}).files()
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 12 * 2**20


def test_weights_dtypes_and_sizes_are_those_of_the_released_checkpoint(whole, of_diffusers):
    (network,) = inspect(whole).networks
    assert (len(network.tensors), network.size, network.nbytes) == (825, 4_999_787_712, 19_999_150_848)
    assert network.dtypes == {"F32": 4_999_787_712}
    (half,) = inspect(of_diffusers).networks
    assert (half.nbytes, [*half.dtypes]) == (9_999_575_424, ["BF16"])
    assert half.files[0].metadata == {"format": "pt"}


def test_repeated_blocks_are_one_block(whole):
    blocks = {block.name: block for block in blocks_of(inspect(whole).networks[0])}
    assert list(blocks) == [
        "blocks.0-29",
        "head",
        "patch_embedding",
        *("text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1"),
    ]
    block = blocks["blocks.0-29"]
    assert (block.number, block.size) == (30, 4_909_701_120)
    assert {row.pattern.removeprefix("blocks.0-29."): row.number for row in block.modules} == {
        "modulation": 30,
        "cross_attn.{k,o,q,v}": 120,
        "cross_attn.{norm_k,norm_q}": 60,
        "self_attn.{k,o,q,v}": 120,
        "self_attn.{norm_k,norm_q}": 60,
        "ffn.0": 30,
        "ffn.2": 30,
        "norm3": 30,
    }
    text = terminal_text(inspect(whole))
    assert "blocks.0-29                   30" in text
    assert "  ffn.0                       30     weight 14336×3072, bias 14336    F32    1,321,635,840  26.4 %" in text


def test_experts_and_their_shards_are_told_apart(experts):
    found = inspect(experts, include=r"cross_attn\.(k|v)", layers="20-29")
    assert [(each.name, each.expert, len(each.files), each.size) for each in found.networks] == [
        ("high_noise_model", "high_noise", 6, 14_288_491_584),
        ("low_noise_model", "low_noise", 6, 14_288_491_584),
    ]
    assert [[each.name for each in group] for group in found.alike()] == [["high_noise_model", "low_noise_model"]]
    assert {name: len(matrices) for name, matrices in found.targets.items()} == dict.fromkeys(names(found), 20)
    assert notes(found) == ["not read: Wan2.1_VAE.pth, which may be pickles; these can run any code when loaded"]
    assert "high_noise_model and low_noise_model, with equal names, shapes and dtypes:" in terminal_text(found)


@pytest.mark.parametrize(
    "places",
    [
        ("wan2.2_t2v_high_noise_14B_fp16", "wan2.2_t2v_low_noise_14B_fp16"),
        ("Wan2_2-I2V-A14B-HIGH-noise", "Wan2_2-I2V-A14B-LOW-noise"),
        ("transformer/diffusion_pytorch_model", "transformer_2/diffusion_pytorch_model"),
    ],
)
def test_experts_are_known_by_files_and_folders(tmp_path, places):
    for place in places:
        write_sparse(tmp_path / f"{place}.safetensors", TINY.original())
    if "transformer/" in places[0]:
        for name in ("transformer", "transformer_2"):
            write_sharded(tmp_path / name, TINY.of_diffusers(), 2)
            (tmp_path / name / "diffusion_pytorch_model.safetensors").unlink()
    assert [network.expert for network in inspect(tmp_path).networks] == ["high_noise", "low_noise"]


def test_experts_in_one_file_are_told_apart(tmp_path):
    shapes = {
        f"{expert}_noise_model.{name}": shape for expert in ("high", "low") for name, shape in TINY.original().items()
    }
    path = write_sparse(tmp_path / "both.safetensors", {**shapes, "logvar": (3,)})
    found = inspect(path, layers="1")
    assert {each.expert: len(each.tensors) for each in found.networks} == {"high_noise": 123, "low_noise": 123, None: 1}
    assert [*found.targets] == ["both.safetensors: high_noise", "both.safetensors: low_noise"]
    assert len(keys_rows(found.networks)[1]) == len(shapes) + 1


def test_both_namings_have_the_same_tensors(whole, of_diffusers):
    (parity,) = inspect(of_diffusers, against=(whole, "5B")).parities
    assert (parity.equal, parity.renamed, parity.other_dtypes, parity.differences) == (825, 823, 825, ())
    (raw,) = inspect(of_diffusers, against=(whole, "5B"), aliases="none").parities
    assert raw.equal == 2
    assert len(raw.of_kind("missing")) == len(raw.of_kind("extra")) == 823


def test_missing_extra_and_other_shapes_are_told(tmp_path):
    ours = {**TINY.original(), "blocks.0.extra.weight": (2, 2)}
    del ours["blocks.3.modulation"]
    ours["head.head.weight"] = (7, 8)
    path = write_sparse(tmp_path / "ours.safetensors", ours)
    other = write_sparse(tmp_path / "other.safetensors", TINY.of_diffusers())
    found = inspect(path, against=(other, "other"))
    (parity,) = found.parities
    assert [tuple(each) for kind in ("missing", "extra", "shape") for each in parity.of_kind(kind)] == [
        ("blocks.3.scale_shift_table", None, None, (1, 6, 8)),
        ("blocks.0.extra.weight", None, (2, 2), None),
        ("head.head.weight", "proj_out.weight", (7, 8), (16, 8)),
    ]
    text = terminal_text(found)
    assert (
        "differ: 121 tensors with equal names and shapes (119 under another name), 1 missing, 1 extra, 1 of another"
        in text
    )
    assert "shape       head.head.weight            1      7×8    16×8" in text


def test_prefixes_of_programs_do_not_count(tmp_path):
    wrapped = {f"model.diffusion_model.{name}": shape for name, shape in TINY.original().items()}
    path = write_sparse(tmp_path / "wrapped.safetensors", wrapped)
    plain = write_sparse(tmp_path / "plain.safetensors", TINY.original())
    found = inspect(path, against=(plain, "plain"))
    assert not found.parities[0].differences
    assert facts(found)["networks"][0]["prefix"] == "model.diffusion_model."
    assert blocks_of(found.networks[0])[0].name == "blocks.0-3"


def test_experts_are_compared_with_those_of_the_same_name(experts, tmp_path):
    for expert in ("low", "high"):
        write_sparse(tmp_path / f"i2v_{expert}_noise.safetensors", I2V_A14B.of_diffusers())
    found = inspect(experts, against=(tmp_path, "i2v"))
    assert [(each.network, each.other) for each in found.parities] == [
        ("high_noise_model", "i2v_high_noise"),
        ("low_noise_model", "i2v_low_noise"),
    ]
    (difference,) = found.parities[0].differences
    assert (difference.kind, difference.shape[1], difference.other_shape[1]) == ("shape", 16, 36)
    for name in ("a", "b"):
        write_sparse(tmp_path / "others" / f"{name}.safetensors", TINY.original())
    with pytest.raises(InvalidConfig, match="cannot tell which of 2 and 2 networks to compare"):
        inspect(experts, against=(tmp_path / "others", "others"))


def test_files_are_joined_by_their_names_without_an_index(tmp_path):
    index = write_sharded(tmp_path / "model", TINY.original(), 3)
    index.unlink()
    (network,) = inspect(tmp_path).networks
    assert (network.name, len(network.files), len(network.tensors)) == ("model", 3, 123)
    (alone,) = inspect(next(tmp_path.glob("model/*00002-of*"))).networks
    assert 0 < len(alone.tensors) < 123
    next(tmp_path.glob("model/*00003-of*")).unlink()
    with pytest.raises(FileFormatError, match=r"is one of 3 files, and .*00003-of-00003.safetensors is missing"):
        inspect(tmp_path)


def test_an_index_can_be_named(tmp_path):
    index = write_sharded(tmp_path, TINY.original(), 2)
    (network,) = inspect(index).networks
    assert (len(network.tensors), network.notes) == (123, ())


def change_index(index, change) -> None:
    document = json.loads(index.read_text())
    change(document)
    index.write_text(json.dumps(document))


def test_what_is_unusual_about_an_index_is_a_note(tmp_path):
    index = write_sharded(tmp_path, TINY.original(), 2)
    change_index(index, lambda document: document["weight_map"].pop("head.head.bias"))
    change_index(index, lambda document: document["metadata"].update(total_size=7))
    assert inspect(tmp_path).networks[0].notes == (
        "the index does not list 1 tensor of its files",
        "the index states 7 bytes of tensors, the files have 19,104",
    )


FIRST, SECOND = (f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))
WRONG_INDICES = {
    "another folder": ({"a": "../x.safetensors"}, "expected plain names"),
    "an absolute path": ({"a": "/etc/x.safetensors"}, "expected plain names"),
    "a pickle": ({"a": "x.bin"}, "expected plain names"),
    "a missing file": ({"a": "gone.safetensors"}, "lists a file that cannot be used: cannot read .*gone.safetensors"),
    "a tensor in the wrong file": ({"head.head.weight": FIRST}, f"lists 'head.head.weight' in {FIRST}, which does not"),
    "no files": ({}, "lists 0 files"),
    "no mapping": ([], "is no index of safetensors files"),
    "numbers": ({"a": 1}, "is no index of safetensors files"),
}


@pytest.mark.parametrize("name", WRONG_INDICES)
def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path, name):
    weight_map, message = WRONG_INDICES[name]
    index = write_sharded(tmp_path, TINY.original(), 2)
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FileFormatError, match=message):
        inspect(tmp_path)


def test_an_index_with_a_tensor_twice_or_without_json_is_refused(tmp_path):
    index = write_sharded(tmp_path, TINY.original(), 2)
    for text, message in (
        (f'{{"weight_map": {{"a": "{FIRST}", "a": "{SECOND}"}}}}', "'a' twice"),
        ("[" * 10**6, "no index"),
    ):
        index.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            inspect(tmp_path)


def test_two_files_of_a_network_with_the_same_tensor_are_refused(tmp_path):
    write_sparse(tmp_path / "m-00001-of-00002.safetensors", {"a": (1,), "b": (1,)})
    write_sparse(tmp_path / "m-00002-of-00002.safetensors", {"b": (1,)})
    with pytest.raises(FileFormatError, match="both have 'b'"):
        inspect(tmp_path)


def test_shards_of_metaopt_belong_to_their_file(tmp_path):
    tensors = {f"w{number}": torch.zeros(64) for number in range(3)}
    write_tensors(tmp_path / "big.safetensors", tensors, "weights", {}, shard_size=256)
    (network,) = inspect(tmp_path).networks
    assert (network.name, len(network.files), set(network.tensors)) == ("big", 4, set(tensors))
    assert inspect(tmp_path / "big.safetensors").networks[0].size == 3 * 64


def test_files_of_metaopt_are_grouped_by_their_tensors():
    found = inspect(GOLDEN / "v0_1_0" / "trajectories" / "old")
    assert [len(group) for group in found.alike()] == [16]
    assert "seed_0/step_00000010 … seed_3/step_00000030 (16 networks), with equal names" in terminal_text(found)
    (checkpoint,) = inspect(GOLDEN / "v0_1_0" / "checkpoints" / "old" / "seed_0").networks
    assert {"base_optimizer/state/0", "model/layers.1"} <= {block.name for block in blocks_of(checkpoint)}


def test_tables_for_programs_have_each_tensor(whole):
    found = inspect(whole)
    rows = list(csv.DictReader(io.StringIO(csv_text(*keys_rows(found.networks)))))
    assert {row["key"]: tuple(json.loads(row["shape"])) for row in rows} == TI2V_5B.original()
    assert sum(int(row["weights"]) for row in rows) == 4_999_787_712
    folded = list(csv.DictReader(io.StringIO(csv_text(*shapes_rows(found.networks)))))
    assert sum(int(row["weights"]) for row in folded) == 4_999_787_712
    assert sum(int(row["count"]) for row in folded) == 825


def test_a_folder_without_weights_or_with_too_many_is_refused(tmp_path, monkeypatch):
    (tmp_path / ".hidden.safetensors").write_bytes(b"x")
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(
        InvalidConfig, match=r"no files that end in .safetensors \(1 file such as model.ckpt may be pickles"
    ):
        inspect(tmp_path)
    for name in "abc":
        write_sparse(tmp_path / f"{name}.safetensors", {"w": (1,)})
    monkeypatch.setattr(inspected_files, "MOST_FILES", 2)
    with pytest.raises(InvalidConfig, match="has 3 files of weights, expected at most 2"):
        inspect(tmp_path)
    monkeypatch.setattr(inspected_files, "_MOST_ENTRIES", 2)
    with pytest.raises(InvalidConfig, match="more than 2 files and folders"):
        inspect(tmp_path)


@pytest.mark.parametrize("place", ["/dev/zero", "gone", "x" * 5000])
def test_what_is_no_file_is_refused(tmp_path, place):
    with pytest.raises(FileFormatError, match="cannot read"):
        inspect(tmp_path / place)


def test_names_that_would_control_a_terminal_are_escaped(tmp_path):
    name = "a\x1b[31m\u202e|<b>\n.weight"
    path = write_sparse(tmp_path / "x.safetensors", {name: (2, 2)}, **{"\x1b]0;": "\x07"})
    found = inspect(path, include="a")
    report = report_of(found, {}).files()
    for text in (terminal_text(found), report["report.md"].decode()):
        assert text.replace("\n", "").isprintable()
        assert r"a\x1b[31m\u202e" in text
    assert r"\|&lt;b>\n" in report["report.md"].decode()
    assert next(csv.DictReader(io.StringIO(report["keys.csv"].decode(), newline="")))["key"] == name


def test_a_name_of_a_million_characters_is_refused(tmp_path):
    header = json.dumps({"x" * 10**6: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
    (tmp_path / "x.safetensors").write_bytes(with_length(header))
    with pytest.raises(FileFormatError, match="expected names of 1,000 characters"):
        inspect(tmp_path / "x.safetensors")


def test_matrices_are_chosen_where_there_are_any(tmp_path):
    write_sparse(tmp_path / "transformer.safetensors", TINY.of_diffusers())
    write_sparse(tmp_path / "vae.safetensors", {"encoder.conv.weight": (4, 3, 3, 3), "mid.proj.weight": (4, 4)})
    assert [*inspect(tmp_path, include="attn").targets] == ["transformer"]
    with pytest.raises(InvalidConfig, match="matches none of the 46 matrices"):  # of the larger network
        inspect(tmp_path, include="nothing")


def test_a_network_without_tensors_is_shown(tmp_path):
    found = inspect(write_sparse(tmp_path / "empty.safetensors", {}))
    assert "empty.safetensors  –       1      0        0" in terminal_text(found)
