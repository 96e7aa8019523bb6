"""Names of tensors are folded into patterns, of which nothing is lost."""

import re
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.weights.folded_names import FoldedModules, fold, group_of, natural, number_in, pieces, ranges

from ..wan_files import TI2V_5B


def unfolded(rows) -> dict:
    """The names that patterns stand for, with what belongs to each."""

    def alternatives(piece):
        separator = piece[:1] if piece[:1] in ("/", ".") else ""
        text = piece.removeprefix(separator)
        if re.fullmatch(r"[0-9]+([-,][0-9]+)*", text):
            bounds = [[int(number) for number in part.split("-")] for part in text.split(",")]
            found = [str(number) for part in bounds for number in range(part[0], part[-1] + 1)]
        else:
            found = text[1:-1].split(",") if text.startswith("{") else [text]
        return [separator + each for each in found]

    return {
        "".join(chosen) + leaf: spec
        for row in rows
        for chosen in product(*map(alternatives, pieces(row.pattern) if row.pattern else [""]))
        for leaf, spec in row.tensors
    }


def test_blocks_and_layers_of_the_same_structure_are_one_pattern():
    names = {
        f"blocks.{block}.{part}.{kind}": kind for block in range(30) for part in "qk" for kind in ("weight", "bias")
    }
    assert fold(names) == [FoldedModules("blocks.0-29.{k,q}", 60, ((".weight", "weight"), (".bias", "bias")))]


def test_other_shapes_stay_apart():
    names = {f"blocks.{block}.w": 8 if block < 10 or block == 20 else 4 for block in range(21)}
    assert [(row.pattern, row.number) for row in fold(names)] == [("blocks.0-9,20", 11), ("blocks.10-19", 10)]


def test_layers_with_submodules_are_folded_by_their_numbers_only():
    names = {f"{attention}.{part}.weight": 0 for attention in ("cross_attn", "self_attn") for part in "kv"}
    assert [row.pattern for row in fold(names)] == ["cross_attn.{k,v}", "self_attn.{k,v}"]


def test_a_tensor_beside_modules_stands_alone():
    rows = fold({"scale": 1, "block.shift": 2, "block.inner.weight": 3})
    assert [(row.pattern, row.tensors) for row in rows] == [
        ("scale", (("", 1),)),
        ("block.shift", (("", 2),)),
        ("block.inner", ((".weight", 3),)),
    ]


def test_paths_with_slashes_are_folded_too():
    (row,) = fold({f"base_optimizer/state/{number}/exp_avg": "F32" for number in range(3)})
    assert (row.pattern, row.group, row.number) == ("base_optimizer/state/0-2", "base_optimizer/state/0-2", 3)


def test_nothing_is_nothing():
    assert fold({}) == []


def test_the_names_of_a_real_network_come_back():
    shapes = TI2V_5B.original()
    rows = fold(shapes)
    assert unfolded(rows) == shapes
    assert len(rows) < 25


NAMES = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10", "weight", "bias"]), min_size=1, max_size=4).map(
    ".".join
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 2), max_size=20))
def test_any_names_come_back(specs):
    rows = fold(specs)
    assert unfolded(rows) == specs
    assert sum(row.number * len(row.tensors) for row in rows) == len(specs)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.integers(0, 1), max_size=8))
def test_odd_names_are_counted(specs):
    assert sum(row.number * len(row.tensors) for row in fold(specs)) == len(specs)


def test_a_name_of_many_pieces_is_folded_without_deep_recursion():
    name = ".".join("0" * 400)
    assert "".join(pieces(name)) == name
    assert unfolded(fold({name: 0, f"{name}.1": 0})).keys() == {name, f"{name}.1"}


def test_ranges_groups_and_order():
    assert ranges([3, 1, 2, 7, 9, 8]) == "1-3,7-9"
    assert [group_of(name) for name in ("blocks.0-3.x", "head.w", "0.w", "a/b/1/c")] == [
        "blocks.0-3",
        "head",
        "0",
        "a/b/1",
    ]
    assert [number_in(group) for group in ("blocks.0-3,7", "head", "2")] == [5, 1, 1]
    assert sorted(["b.10", "b.9", "a"], key=natural) == ["a", "b.9", "b.10"]
