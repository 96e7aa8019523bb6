"""What a step of HOPE costs over one of a GPT with equally many weights, for each memory.

A step is the forward and backward pass of one batch of 2,048 tokens. Its CPU time is measured on one thread, in turns
with that of the GPT, so that both meet the same load of the machine; `over GPT` is the median of the ratios, `least`
and `most` are their range. `operations` are those that PyTorch dispatches, and `waits` those for which the host of a
GPU would wait for a value. Both are counted on a device without memory.

Claims: a step takes at most three times as long as that of the GPT, and the host waits for nothing.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from metaopt.targets import get_target_model

from .._measure import Operations, publish
from .hope_against_gpt import sized, weights_of

SHAPES: Mapping[str, Mapping[str, int]] = {
    "small": {"vocab_size": 65, "block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 64},
    "tiny": {"vocab_size": 256, "block_size": 256, "n_layer": 4, "n_head": 4, "n_embd": 128},
    "pilot": {"vocab_size": 256, "block_size": 256, "n_layer": 1, "n_head": 12, "n_embd": 768},
}
"""Sizes of both networks by the name of a row: those of presets, `pilot` with one of its equal blocks."""

_TOKENS = 2048  # of a batch

MEMORIES: Mapping[str, Mapping[str, Any]] = {
    "none": {"memory": "none"},
    "linear": {"memory": "linear"},
    "titan": {"memory": "titan"},
    "self": {"memory": "self"},
    "fixed": {"memory": "self", "self_modifying": False},
}
"""Options of HOPE by the name of a row."""


def step(model: nn.Module, tokens: Tensor) -> None:
    """Forward and backward pass."""
    model(tokens).logsumexp(-1).mean().backward()


def cpu_time(model: nn.Module, tokens: Tensor) -> float:
    """CPU time of a step [ms]."""
    started = time.process_time()
    step(model, tokens)
    return 1000 * (time.process_time() - started)


def operations_of(target: str, options: Mapping[str, Any], batch: int) -> Operations:
    """What a step dispatches on a device without memory."""
    model = get_target_model(target, **options)
    tokens = torch.zeros(batch, options["block_size"], dtype=torch.int64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device("lazy", 0)  # gradients on one of CUDA would start its runtime
        model, tokens = model.to(device), tokens.to(device)
        with Operations() as counted:
            step(model, tokens)
    return counted


def measured(shape: str, memories: Sequence[str], chunks: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Rows of the GPT of a shape and of each memory."""
    sizes = SHAPES[shape]
    weights = weights_of("GPT", sizes)
    options: dict[tuple[str, int], dict[str, Any]] = {("GPT", 0): dict(sizes)}
    for memory in memories:
        for chunk in chunks[:1] if memory == "none" else chunks:
            if chunk < sizes["block_size"]:
                options[memory, chunk] = sized({**sizes, **MEMORIES[memory], "chunk": chunk}, weights)
    target = {case: "GPT" if case[0] == "GPT" else "Hope" for case in options}
    models = {case: get_target_model(target[case], **options[case]) for case in options}
    batch = _TOKENS // sizes["block_size"]
    tokens = torch.randint(sizes["vocab_size"], (batch, sizes["block_size"]))
    for model in models.values():
        step(model, tokens)  # to warm up
    times = [{case: cpu_time(model, tokens) for case, model in models.items()} for _ in range(repeats)]
    rows = []
    for case, given in options.items():
        ratios = [each[case] / each["GPT", 0] for each in times]
        counted = operations_of(target[case], given, batch)
        rows.append(
            {
                "shape": shape,
                "memory": case[0],
                "chunk": case[1],
                "CPU ms": median(each[case] for each in times),
                "over GPT": median(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "operations": counted.total,
                "waits": counted.waits,
            }
        )
    return rows


@click.command()
@click.option("--shapes", default=",".join(SHAPES), show_default=True, help="Sizes, by commas.")
@click.option("--memories", default=",".join(MEMORIES), show_default=True, help="Memories, by commas.")
@click.option("--chunks", default="16,64", show_default=True, help="Tokens that a memory writes together, by commas.")
@click.option("--repeats", default=3, show_default=True, help="Measured steps of each network.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(shapes: str, memories: str, chunks: str, repeats: int, output: Path | None) -> None:
    """Measure the steps and print their ratios."""
    torch.set_num_threads(1)
    lengths = [int(chunk) for chunk in chunks.split(",")]
    rows = [row for shape in shapes.split(",") for row in measured(shape, memories.split(","), lengths, repeats)]
    publish("CPU time of a step of HOPE over that of a GPT of equal size", rows, output)


if __name__ == "__main__":
    main()
