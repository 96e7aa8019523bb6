"""The benchmark of memories that modify themselves: what it asks for, its networks, and that it runs."""

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks.nested.self_modification import KEYS, TASKS, VALUES, WIDTH, Network, Setting, main, make_batch


@pytest.mark.parametrize("task", TASKS)
def test_it_asks_for_the_value_that_a_key_has_now(task):
    inputs, targets = make_batch(Setting(task, 8, 1, 40), 3, torch.Generator().manual_seed(0))
    replaced = 0
    for sequence, asked in zip(inputs, targets, strict=True):
        stored = {}
        for token, target in zip(sequence, asked, strict=True):
            key = tuple(token[:WIDTH].mul(100).round().tolist())
            if token[-1]:
                assert stored.get(key, target.item()) == target  # after the rotation a key may not have appeared
            else:
                assert target == -1
                value = token[WIDTH : WIDTH + VALUES].argmax().item()
                replaced += stored.get(key, value) != value
                stored[key] = value
        assert len(stored) == KEYS if task == "rebound" else KEYS < len(stored) <= 2 * KEYS
    assert (replaced > 0) == (task == "rebound")


def test_both_networks_have_as_many_parameters():
    sizes = [sum(part.numel() for part in Network(adaptive, 8).parameters()) for adaptive in (True, False)]
    assert sizes[0] == sizes[1]


def test_it_prints_and_writes_a_row_per_task(tmp_path):
    output = tmp_path / "rows.json"
    arguments = ["--steps", "2", "--pairs", "7", "--seeds", "2", "--rates", "0.01", "--output", str(output)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert [row["task"] for row in rows] == list(TASKS)
    assert all(0 < row["adaptive: loss"] < 5 for row in rows)
