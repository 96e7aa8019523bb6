"""Cost of nowcasts on a GPU: steps, snapshots, forecasts, nowcasts with their guard, and memory.

Goal, on an H100, for GPT-2 (124 million weights, batches of 8 × 512 tokens, autocast to bfloat16): a forecast at one
horizon in 50 ms, a snapshot in 5 ms, nowcasts with their guard in 5 % of the training time, and a peak of 1.5 GB beyond
training and history.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from metaopt import Nowcast

from ._measure import publish

_WARM_UP = 100  # steps; then the history is full


def gpt2() -> Any:
    """GPT-2 of 124 million weights, untrained."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config())


def llama() -> Any:
    """A Llama of 1.1 billion weights, untrained."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=32, num_key_value_heads=4))


def small() -> Any:
    """A GPT-2 of 100 thousand weights, to try this benchmark."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=200, n_positions=512, n_embd=64, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
        )
    )


CASES: dict[str, tuple[Callable[[], Any], int, int, dict[str, str]]] = {
    "small": (small, 2, 32, {}),
    "small, cpu bfloat16": (small, 2, 32, {"history_device": "cpu", "history_dtype": "bfloat16"}),
    "GPT-2": (gpt2, 8, 512, {}),
    "GPT-2, cpu bfloat16": (gpt2, 8, 512, {"history_device": "cpu", "history_dtype": "bfloat16"}),
    "Llama 1.1B, cpu bfloat16": (llama, 1, 512, {"history_device": "cpu", "history_dtype": "bfloat16"}),
}
"""Network, batch size, tokens of an example, and options of `Nowcast`."""


def measure(case: str, device: torch.device, steps: int) -> dict[str, Any]:
    """Train with AdamW and nowcasts, and time steps by what they contain."""
    build, rows, length, options = CASES[case]
    torch.manual_seed(0)
    with device:
        model = build()
    vocabulary = model.config.vocab_size
    held_out = torch.randint(vocabulary, (rows, length), device=device)

    def losses(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(input_ids=tokens).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none").mean(
            1
        )

    def guard() -> torch.Tensor:
        model.eval()
        return losses(held_out)

    base = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step(optimizer: torch.optim.Optimizer) -> float:
        tokens = torch.randint(vocabulary // 8, (rows, length), device=device)
        started = _now(device)
        optimizer.zero_grad()
        losses(tokens).mean().backward()
        optimizer.step()
        return _now(device) - started

    alone = median([step(base) for _ in range(12)][2:])
    training_peak = _peak(device)
    optimizer = Nowcast(base, model, "builtin", guard=guard, max_overhead=None, **options)  # type: ignore[arg-type]
    durations: dict[str, list[float]] = {"step": [], "snapshot": [], "nowcast": []}
    for _ in range(_WARM_UP + steps):
        took = step(optimizer)
        if optimizer.steps > _WARM_UP:
            policy = optimizer.policy
            due = "snapshot" if policy.snapshot_due(optimizer.steps) else "step"
            durations["nowcast" if policy.nowcast_due(optimizer.steps) else due].append(took)
    total = sum(map(sum, durations.values()))
    rows_on_device = [row for row in optimizer._tracked.history.snapshots.rows if row.device.type == device.type]
    averages = sum(4 * optimizer.layout.size for _ in optimizer._tracked.averages)
    beyond = _peak(device) - training_peak - sum(row.nbytes for row in rows_on_device) - averages
    forecasts = []
    for _ in range(6):
        started = _now(device)
        optimizer.predict()
        forecasts.append(_now(device) - started)
    return {
        "case": case,
        "weights": optimizer.layout.size,
        "AdamW ms": 1000 * alone,
        "step ms": 1000 * median(durations["step"]),
        "snapshot ms more": 1000 * (median(durations["snapshot"]) - median(durations["step"])),
        "forecast ms": 1000 * median(forecasts),
        "nowcast ms more": 1000 * (median(durations["nowcast"]) - median(durations["step"])),
        "guard calls": median(event.guard_calls for event in optimizer.events[-len(durations["nowcast"]) :]),
        "% of the time": 100 * (total - (steps * alone)) / total,
        "GB beyond": beyond / 1e9 if device.type == "cuda" else 0.0,
    }


def _now(device: torch.device) -> float:
    """The time when the device has done everything so far [s]."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(device: torch.device) -> float:
    """Peak memory on the device [bytes]; 0 on the CPU."""
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0.0


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--cases", default=";".join(list(CASES)[2:]), show_default=True, help="Separated by semicolons.")
@click.option("--steps", default=160, show_default=True, help="Measured steps of each case; at least 40.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(device: str, cases: str, steps: int, output: Path | None) -> None:
    """Time trainings with nowcasts."""
    where, rows = torch.device(device), []
    for case in cases.split(";"):
        rows.append(measure(case, where, steps))
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else device
    publish(f"nowcasts on {name}", rows, output)


if __name__ == "__main__":
    main()
