"""What a delta budget adds to a training step of adapters.

    python -m benchmarks.adapters.budget_cost

CPU time of a projection over that of a step of Adam on batches of 16 captioned shapes, alternating, on one thread. The
network is small: in a larger one a step takes longer, and the projection, whose matrices have the size of the rank, a
smaller share.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import torch

from metaopt import get_target_model, load_task
from metaopt.adapters import AdapterConfig, DeltaBudget, chosen_adapters, insert_adapters
from metaopt.recording.training import take_step

from .._measure import publish
from .trainings import TASK

CASES = {"cross-attention": (r"attn2\.to_(k|v)", 4), "feed-forward": (r"transformer\.blocks.*ffn", 16)}
"""Expressions on names of modules, and ranks."""


def measured(include: str, rank: int, steps: int = 60) -> dict[str, Any]:
    """The share of a step that a projection takes: median and quartiles of alternating measurements."""
    task = load_task(TASK, examples=steps * 32)
    model = get_target_model("TextToVideo", task.model_facts)
    facts = chosen_adapters(model, AdapterConfig(adapter="lora", include=include, rank=rank))
    assert facts is not None
    insert_adapters(model, facts._asdict())
    budget = DeltaBudget(model, cap=0.05)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    batches = list(task.batches(16, seed=0, epoch=0))[:steps]
    pairs = [
        (_seconds(lambda: take_step(model, optimizer, task, batch)), _seconds(budget.project))  # noqa: B023
        for batch in batches
    ]
    shares = [projection / median(step for step, _ in pairs) for _, projection in pairs]
    least, middle, most = quantiles(shares, n=4)
    return {
        "modules": len(facts.modules),
        "rank": rank,
        "step [ms]": 1e3 * median(step for step, _ in pairs),
        "share": middle,
        "least": least,
        "most": most,
    }


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(output: Path | None) -> None:
    """Measure the cost of budgets and print it."""
    torch.set_num_threads(1)
    publish("Cost of a delta budget", [{"adapters": name, **measured(*case)} for name, case in CASES.items()], output)


if __name__ == "__main__":
    main()
