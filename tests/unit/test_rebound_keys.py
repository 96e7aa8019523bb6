"""The benchmark of re-bound keys: what it asks for, its grids, and that it runs."""

import json

import torch
from click.testing import CliRunner

from benchmarks.nested.rebound_keys import errors, grids, main, make_stream
from metaopt.nested import LinearMemory, Rates


def test_it_asks_for_the_value_of_the_last_appearance_of_a_key():
    stream = make_stream(seed=0, tokens=80, keys=5, width=8, noise=0.0, replaced=0.3)
    last, replaced = {}, 0
    for token, (key, value, bound) in enumerate(zip(stream.keys[0], stream.values[0], stream.bound[0], strict=True)):
        name = tuple((8 * key).round().tolist())
        assert stream.asked[0, token].item() == (token >= 20 and name in last)
        if name in last:
            torch.testing.assert_close(bound, last[name])
            replaced += not torch.equal(bound, value)
        last[name] = value
    assert len(last) == 5
    assert 12 < replaced < 36


def test_the_error_is_one_for_a_memory_that_stores_nothing_and_small_for_one_key():
    stream = make_stream(seed=0, tokens=40, keys=1, width=8, noise=0.0, replaced=0.3)
    nothing, exact = errors(LinearMemory(8, 8), stream, [Rates(0.0), Rates(0.5)])
    torch.testing.assert_close(nothing, torch.ones(1))
    assert exact.item() < 1e-10


def test_both_rules_try_equally_many_settings():
    alone, full = grids(3)
    assert len(alone) == len(full) == 27
    assert all(rates.momentum == rates.forget == 0 for rates in alone)
    assert Rates(full[0].lr) == full[0]


def test_it_prints_and_writes_a_row_per_stream(tmp_path):
    arguments = ["--tokens", "24", "--grid", "2", "--seeds", "2", "--width", "4", "--keys", "3"]
    output = tmp_path / "rows.json"
    for memory in ("linear", "titan"):
        result = CliRunner().invoke(
            main, [*arguments, "--memory", memory, "--noise", "0,1", "--output", str(output)], catch_exceptions=False
        )
        assert result.exit_code == 0
        rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
        assert [(row["memory"], row["noise"]) for row in rows] == [(memory, 0.0), (memory, 1.0)]
        assert all(0 < row["ratio"] < 10 for row in rows)
