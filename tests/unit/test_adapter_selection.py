"""Which matrices an adapter changes: names in two namings, regular expressions and layers."""

from math import prod

import pytest

from metaopt.adapters import WAN, AliasTable, matrices_of, parse_layers, select_matrices
from metaopt.adapters.aliases import wrapper_of
from metaopt.core.errors import InvalidConfig

from ..wan_files import I2V_A14B, T2V_A14B, TI2V_5B, TINY

NETWORKS = {"5B": TI2V_5B, "A14B": T2V_A14B, "A14B from images": I2V_A14B, "tiny": TINY}


@pytest.mark.parametrize(
    ("network", "tensors", "weights"), [(TI2V_5B, 825, 4_999_787_712), (T2V_A14B, 1095, 14_288_491_584)]
)
def test_the_lists_have_the_totals_of_the_released_checkpoints(network, tensors, weights):
    for shapes in (network.original(), network.of_diffusers()):
        assert (len(shapes), sum(map(prod, shapes.values()))) == (tensors, weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_translates_every_name_and_shape(name):
    original, of_diffusers = NETWORKS[name].original(), NETWORKS[name].of_diffusers()
    assert {WAN.translated(key): shape for key, shape in original.items()} == of_diffusers


@pytest.mark.parametrize("name", NETWORKS)
def test_every_matrix_has_its_original_name_among_its_spellings(name):
    original = {matrix.module for matrix in matrices_of(NETWORKS[name].original())}
    for matrix in matrices_of(NETWORKS[name].of_diffusers()):
        assert len(original & {*WAN.spellings(matrix.module)}) == 1, matrix


def test_the_naming_of_a_network_is_told_by_names_that_only_one_has():
    assert WAN.is_original(TINY.original())
    assert not WAN.is_original(TINY.of_diffusers())
    assert not WAN.is_original(["model.layers.0.self_attn.q_proj.weight", "norm2.weight"])


@pytest.mark.parametrize("wrapper", ["", "model.diffusion_model.", "base_model.model.model.", "transformer."])
def test_wrapped_names_can_be_compared(wrapper):
    wrapped = [wrapper + name for name in TINY.original()]
    assert wrapper_of(wrapped) == wrapper
    assert {*WAN.comparable(wrapped).values()} == {*TINY.of_diffusers()}


def test_names_that_would_become_equal_are_left_as_they_are():
    names = ["self_attn.q", "attn1.to_q"]
    assert WAN.comparable(names) == dict(zip(names, names, strict=True))


def test_a_table_replaces_whole_pieces_the_longest_first():
    table = AliasTable({"a": "b", "a.c": "d", "b": "a"})
    assert [table.translated(name) for name in ("a.x", "a.c.x", "b.a", "aa.xa")] == ["b.x", "d.x", "a.b", "aa.xa"]


def modules(shapes, **choice) -> set:
    return {matrix.module for matrix in select_matrices(shapes, **choice)}


def expected(layers, *parts) -> set:
    return {f"blocks.{layer}.{part}" for layer in layers for part in parts}


CHOICE = {"include": r"cross_attn\.(k|v)", "exclude": "self_attn", "layers": "20-29"}


def test_the_example_of_the_worked_recipe_is_the_same_in_both_namings():
    assert modules(TI2V_5B.original(), **CHOICE) == expected(range(20, 30), "cross_attn.k", "cross_attn.v")
    assert modules(TI2V_5B.of_diffusers(), **CHOICE) == expected(range(20, 30), "attn2.to_k", "attn2.to_v")
    assert modules(TI2V_5B.original(), include=r"attn2\.to_(k|v)", exclude="attn1", layers="20-29") == modules(
        TI2V_5B.original(), **CHOICE
    )


@pytest.mark.parametrize(
    ("include", "parts"),
    [
        (r"cross_attn\.o", ["attn2.to_out.0"]),
        (r"self_attn\.q$", ["attn1.to_q"]),
        (r"ffn\.0", ["ffn.net.0.proj"]),
        (r"ffn\.2", ["ffn.net.2"]),
        (r"ffn\.(0|2)", ["ffn.net.0.proj", "ffn.net.2"]),
    ],
)
def test_original_names_choose_in_a_network_of_diffusers(include, parts):
    assert modules(TINY.of_diffusers(), include=include) == expected(range(4), *parts)


def test_without_aliases_names_mean_themselves():
    with pytest.raises(InvalidConfig, match="matches none of the 46 matrices"):
        select_matrices(TINY.of_diffusers(), include="cross_attn", aliases=None)


def test_shapes_and_order_are_those_of_the_network():
    found = select_matrices(TI2V_5B.original(), include=r"ffn\.0", layers="9,10")
    assert [tuple(matrix) for matrix in found] == [("blocks.9.ffn.0", 14336, 3072), ("blocks.10.ffn.0", 14336, 3072)]


def test_without_any_choice_all_matrices_are_chosen_and_nothing_else():
    names = {matrix.module for matrix in select_matrices(TINY.original())}
    assert {"head.head", "text_embedding.0", "blocks.3.ffn.2"} <= names
    assert not names & {"patch_embedding", "blocks.0.norm3", "blocks.0.self_attn.norm_q", "blocks.0"}


def test_layers_are_the_entries_of_the_longest_list():
    assert modules(TINY.original(), layers="0") == {
        name for name in modules(TINY.original()) if name.startswith("blocks.0.")
    }
    nested = {f"model.layers.{layer}.experts.{expert}.weight": (2, 2) for layer in range(3) for expert in range(8)}
    assert modules(nested, layers="2") == {f"model.layers.2.experts.{expert}" for expert in range(8)}
    two = {f"{name}.blocks.{layer}.weight": (2, 2) for name in ("high", "low") for layer in range(3)}
    assert modules(two, layers="1") == {"high.blocks.1", "low.blocks.1"}
    plain = {f"{layer}.weight": (2, 2) for layer in range(3)}
    assert modules(plain, layers="1-2") == {"1", "2"}
    with_gaps = {f"layers.{layer}.weight": (2, 2) for layer in (1, 3, 5)}
    assert modules(with_gaps, layers="1-3") == {"layers.1", "layers.3"}


@pytest.mark.parametrize(
    ("text", "layers"), [("3", {3}), ("20-22", {20, 21, 22}), ("0, 4,8-9", {0, 4, 8, 9}), ("5-5", {5})]
)
def test_layers_are_numbers_and_ranges(text, layers):
    assert parse_layers(text) == layers


REFUSED = {
    "no regular expression": ({"include": "attn("}, r"include is 'attn\(', which is no regular expression"),
    "too large a repetition": ({"include": "a{99999999999999999999}"}, "no regular expression"),
    "many brackets": ({"exclude": "[" * 1000}, "exclude is .*no regular expression"),
    "a typing error": ({"include": "cros_attn"}, "matches none of the 46 matrices, which have names such as"),
    "an exclude that matches nothing": ({"exclude": "self_atn"}, "exclude 'self_atn' matches none"),
    "everything excluded": (
        {"include": "self_attn", "exclude": "attn1"},
        "no matrix is left: of 46, include matches 16",
    ),
    "nothing in the layers": ({"include": "head", "layers": "0"}, "no matrix is left"),
    "layers out of range": ({"layers": "2-5"}, "blocks has the layers 0-3; expected layers that exist"),
    "layers in reverse": ({"layers": "3-1"}, "expected numbers and ranges from low to high"),
    "layers in words": ({"layers": "last"}, "layers is 'last'; expected numbers"),
    "negative layers": ({"layers": "-1"}, "expected numbers"),
    "empty layers": ({"layers": ","}, "expected numbers"),
    "layers without end": ({"layers": "0-999999999"}, "expected numbers"),
    "layers beyond reason": ({"layers": "9" * 5000}, "expected numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_choice_that_cannot_be_meant_is_refused(name):
    choice, message = REFUSED[name]
    with pytest.raises(InvalidConfig, match=message):
        select_matrices(TINY.original(), **choice)


def test_networks_without_matrices_or_layers_are_refused():
    with pytest.raises(InvalidConfig, match="has no matrices"):
        select_matrices({"bias": (3,), "kernel.weight": (1, 2, 3)})
    with pytest.raises(InvalidConfig, match="no module has a number in its name"):
        select_matrices({"head.weight": (2, 2)}, layers="0")
