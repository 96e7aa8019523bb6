"""What growth costs: CPU time of a training step at a dormant tap, and while a seed is trained, over the host's alone.

    python -m benchmarks.growth.step_cost

Steps of the three networks alternate in one process on one thread. A ratio is the median over rounds; `least` and
`most` are its quartiles. Decisions are not part of a step: with `interval=20` and 256 examples, each costs as much as
about four steps of 64 examples without gradients.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import torch

from metaopt.growth import Growth, GrowthConfig, blueprints_of
from metaopt.optimizers import optimizer_for
from metaopt.recording.training import take_step
from metaopt.targets import get_target_model
from metaopt.tasks import Batch, Task, load_task

from .._measure import publish

_STEPS = 5  # of a round

HOSTS = {
    "HostCNN": ({"image_size": 32, "in_channels": 1}, "cnn", (64, 1, 32, 32)),
    "TransformerHost": ({"vocab_size": 256, "block_size": 64}, "transformer", (16, 64)),
}
"""Options, topology and the shape of the inputs of each host."""


def step_of(task: Task, batch: Batch, name: str, options: dict[str, Any], blueprint: str | None) -> Callable[[], None]:
    """A training step of a host, with a seed that is trained, or with a dormant slot if `blueprint` is empty.

    Args:
        blueprint: None for a host without growth.
    """
    torch.manual_seed(0)
    model = get_target_model(name, **options)
    optimizer = optimizer_for(model, "Adam", 1e-3, {})
    if blueprint is None:

        def step_alone() -> None:
            float(take_step(model, optimizer, task, batch))

        return step_alone
    growth = Growth(model, optimizer, task, GrowthConfig())
    if blueprint:
        growth.germinate(next(iter(growth.slots)), blueprint)
        growth.after_step(1, 1.0)
    steps = iter(range(2, 10**9))

    def step() -> None:
        growth.after_step(next(steps), float(take_step(model, optimizer, task, batch, growth.after_backward)))

    return step


def measured(task: Task, batch: Batch, name: str, blueprint: str, rounds: int) -> dict[str, Any]:
    """The ratio of the CPU times of a step."""
    options = HOSTS[name][0]
    alone, other = (step_of(task, batch, name, options, each) for each in (None, blueprint))
    ratios = []
    for round_number in range(rounds + 1):
        times = []
        for step in (alone, other):
            started = time.process_time()
            for _ in range(_STEPS):
                step()
            times.append(time.process_time() - started)
        if round_number:  # the first is to warm up
            ratios.append(times[1] / times[0])
    least, _, most = quantiles(ratios, n=4)
    return {"host": name, "slot": blueprint or "dormant", "ratio": median(ratios), "least": least, "most": most,
            "goal": 2.0 if blueprint else 1.01}  # fmt: skip


def data_of(name: str) -> tuple[Task, Batch]:
    """A task whose loss the host takes, and a random batch of the size that is measured."""
    if name == "HostCNN":
        task = load_task("digits", image_size=32)
        return task, Batch(torch.rand(HOSTS[name][2]), torch.randint(10, (64,)))
    task = load_task("associative-recall", pairs=4, block_size=64, vocab_size=256, examples=100)
    tokens = torch.randint(256, HOSTS[name][2])
    return task, Batch(tokens, tokens.clone())


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Rounds of each measurement.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(rounds: int, output: Path | None) -> None:
    """Measure and print all ratios."""
    torch.set_num_threads(1)
    rows = []
    for name, (_, topology, _) in HOSTS.items():
        task, batch = data_of(name)
        for blueprint in ("", *(each.name for each in blueprints_of(topology))):
            rows.append(measured(task, batch, name, blueprint, rounds))
    publish("CPU time of a training step of a network that grows, over that of its host", rows, output)


if __name__ == "__main__":
    main()
