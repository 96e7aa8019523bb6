"""What a step of HOPE costs: how many operations it dispatches, and the command that measures its time."""

import json

import pytest
from click.testing import CliRunner

from benchmarks.nested.step_cost import MEMORIES, main, operations_of

SMALL = {"vocab_size": 11, "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 16}


def test_a_chunk_of_the_self_modifying_memory_takes_few_operations():
    """More than a thousand, forward and backward, if each of its five memories is computed alone."""
    counts = [operations_of("Hope", {**SMALL, "memory": "self", "chunk": chunk}, 2).total for chunk in (8, 16)]
    assert (counts[0] - counts[1]) / 2 < 600


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_measurement_of_every_memory_runs(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.nested.step_cost.SHAPES", {"small": SMALL})
    monkeypatch.setattr("benchmarks.nested.step_cost._TOKENS", 64)
    output = tmp_path / "result.json"
    flags = ["--shapes", "small", "--memories", memory, "--chunks", "16,64", "--repeats", "1", "--output", str(output)]
    result = CliRunner().invoke(main, flags)
    assert result.exit_code == 0, result.output
    gpt, hope = json.loads(output.read_text())["rows"]
    assert gpt["over GPT"] == 1
    assert hope["memory"] == memory
    assert hope["operations"] > gpt["operations"]
    assert hope["waits"] == gpt["waits"] == 0
