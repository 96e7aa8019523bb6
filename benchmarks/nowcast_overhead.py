"""Time that nowcasts add to trainings of small networks, whose steps take milliseconds.

A case is trained with Adam alone and with nowcasts by the built-in optimizer, one after the other in one process, for
each limit on their time. The guard is that of `guard_from`: 134 held-out examples of digits, or 256 of associative
recall.

Goal: at most 5 % by default, where steps take more than 2 ms.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any, NamedTuple

import click
import torch
from torch import nn

import metaopt
from metaopt.tasks.base import Batch, Task

from ._measure import in_fresh_process, publish


class Case(NamedTuple):
    """A training.

    Attributes:
        task: name of the task.
        task_options: its options.
        target: name of the network.
        target_options: its options.
        batch_size: examples in a batch [count].
        steps: length of the training [steps].
    """

    task: str
    task_options: dict[str, Any]
    target: str
    target_options: dict[str, Any]
    batch_size: int
    steps: int


CASES = {
    "MLP": Case("digits", {}, "MLP", {}, 64, 1500),
    "CNN": Case("digits", {}, "ConvNet", {"norm": "batch"}, 64, 1000),
    "GPT": Case("associative-recall", {"block_size": 64}, "GPT", {"n_layer": 2, "n_embd": 64}, 16, 600),
}
"""Trainings by name; the CNN has BatchNorm."""

DEFAULT, NO_LIMIT = "default", "none"


class Outcome(NamedTuple):
    """What a training took, and what came of it.

    Attributes:
        wall, cpu: time of the training, of a clock and of the processor [seconds].
        loss: validation loss of the last weights.
        nowcasts: how many there were [count].
        stopped: whether they stopped because they did not pay.
    """

    wall: float
    cpu: float
    loss: float
    nowcasts: int = 0
    stopped: bool = False


def measure(name: str, limits: Sequence[str], threads: int, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Compare trainings of a case with nowcasts to those without, for several random seeds; a row for each limit."""
    torch.set_num_threads(threads)
    case = CASES[name]
    task = metaopt.load_task(case.task, **case.task_options)
    steps = steps or case.steps
    _train(case, task, 0, 100, DEFAULT)  # warm-up
    alone, others = [], []
    for seed in range(seeds):
        alone.append(_train(case, task, seed, steps, None))
        others.append([_train(case, task, seed, steps, limit) for limit in limits])
    return [
        _row(name, limit, steps, alone, with_nowcasts)
        for limit, with_nowcasts in zip(limits, zip(*others, strict=True), strict=True)
    ]


def _row(
    name: str, limit: str, steps: int, alone: Sequence[Outcome], with_nowcasts: Sequence[Outcome]
) -> dict[str, Any]:
    pairs = list(zip(with_nowcasts, alone, strict=True))
    wall = [one.wall / other.wall for one, other in pairs]
    cpu = [one.cpu / other.cpu for one, other in pairs]
    return {
        "case": name,
        "max_overhead": limit,
        "steps": steps,
        "ms per step": 1000 * mean(each.wall for each in alone) / steps,
        "added %": 100 * (geometric_mean(wall) - 1),
        "min %": 100 * (min(wall) - 1),
        "max %": 100 * (max(wall) - 1),
        "CPU %": 100 * (geometric_mean(cpu) - 1),
        "nowcasts": mean(each.nowcasts for each in with_nowcasts),
        "stopped": sum(each.stopped for each in with_nowcasts),
        "loss": mean(each.loss for each in with_nowcasts),
        "loss alone": mean(each.loss for each in alone),
    }


def _train(case: Case, task: Task, seed: int, steps: int, limit: str | None) -> Outcome:
    """Train, with nowcasts if there is a limit for them."""
    torch.manual_seed(seed)
    model = metaopt.get_target_model(case.target, task.model_facts, **case.target_options)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if limit is not None:
        options: dict[str, Any] = (
            {} if limit == DEFAULT else {"max_overhead": None if limit == NO_LIMIT else float(limit)}
        )
        guard = metaopt.guard_from(task.splits["guard"], task.losses)
        optimizer = metaopt.Nowcast(optimizer, model, "builtin", guard=guard, **options)
    model.train()
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in islice(_batches(case, task, seed), steps):
        optimizer.zero_grad()
        task.loss(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Outcome(wall, cpu, _validation_loss(task, model), *_nowcasts(optimizer))


def _batches(case: Case, task: Task, seed: int) -> Iterator[Batch]:
    return chain.from_iterable(task.batches(batch_size=case.batch_size, seed=seed, epoch=epoch) for epoch in count())


def _nowcasts(optimizer: torch.optim.Optimizer) -> tuple[int, bool]:
    """How many nowcasts there were, and whether they stopped."""
    if not isinstance(optimizer, metaopt.Nowcast):
        return 0, False
    return len(optimizer.events), "\noff " in optimizer.summary()


@torch.no_grad()
def _validation_loss(task: Task, model: nn.Module) -> float:
    held_out = task.splits["validation"][:]
    return float(task.losses(model.eval()(held_out.inputs), held_out.labels).mean())


@click.command()
@click.option("--cases", default=",".join(CASES), show_default=True)
@click.option(
    "--limits", default=f"{DEFAULT},{NO_LIMIT}", show_default=True, help="Values of max_overhead; default: not given."
)
@click.option("--threads", default=1, show_default=True)
@click.option("--steps", default=0, help="Length of a training; by default that of the case [steps].")
@click.option("--seeds", default=3, show_default=True, help="Random seeds [count].")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(cases: str, limits: str, threads: int, steps: int, seeds: int, output: Path | None) -> None:
    """Compare trainings with and without nowcasts, each case in a fresh process."""
    chosen = limits.split(",")
    rows = [row for name in cases.split(",") for row in in_fresh_process(measure, name, chosen, threads, steps, seeds)]
    publish(f"nowcasts every 40 steps, {threads} threads", rows, output)


if __name__ == "__main__":
    main()
