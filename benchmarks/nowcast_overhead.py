"""Time that nowcasts add to trainings of small networks on digits, whose steps take milliseconds.

Each row compares trainings with nowcasts by the built-in optimizer to the same trainings without, one after the other
in one process. The guard measures all held-out examples, which takes about as long as a step.

Goal, on 2 cores: at most 10 % for networks whose steps take milliseconds.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import click
import torch

import metaopt
from metaopt.tasks.base import Task

from ._measure import in_fresh_process, publish

_BATCH = 64


def measure(target: str, options: dict[str, Any] | None, threads: int, steps: int, seeds: int) -> dict[str, Any]:
    """Compare trainings with nowcasts to those without, for several random seeds."""
    torch.set_num_threads(threads)
    task = metaopt.load_task("digits")
    _train(task, target, 0, 2 * _BATCH, {})  # warm-up
    ratios, step_times, losses, alone_losses, nowcasts, calls = [], [], [], [], [], []
    for seed in range(seeds):
        alone, alone_loss, _ = _train(task, target, seed, steps, None)
        seconds, loss, events = _train(task, target, seed, steps, options)
        ratios.append(seconds / alone)
        step_times.append(1000 * alone / steps)
        losses.append(loss)
        alone_losses.append(alone_loss)
        nowcasts.append(len(events))
        calls.append(sum(event.guard_calls for event in events))
    return {
        "network": target,
        "options": ", ".join(f"{name}={value}" for name, value in (options or {}).items()) or "default",
        "threads": threads,
        "ms per step": mean(step_times),
        "added %": 100 * (geometric_mean(ratios) - 1),
        "min %": 100 * (min(ratios) - 1),
        "max %": 100 * (max(ratios) - 1),
        "nowcasts": mean(nowcasts),
        "guard calls": mean(calls),
        "loss": mean(losses),
        "loss without": mean(alone_losses),
    }


def _train(
    task: Task, target: str, seed: int, steps: int, options: dict[str, Any] | None
) -> tuple[float, float, list[Any]]:
    """Train, with nowcasts if there are options for them: seconds, validation loss in the end, and nowcasts."""
    torch.manual_seed(seed)
    model = metaopt.get_target_model(target, task.model_facts)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if options is not None:
        guard = partial(_losses, task, model, task.splits["guard"][:])
        optimizer = metaopt.Nowcast(optimizer, model, "builtin", guard=guard, **options)
    step = _step(task, model, optimizer)
    begin, epoch, done = time.perf_counter(), 0, 0
    while done < steps:
        for batch in task.batches(batch_size=_BATCH, seed=seed, epoch=epoch):
            step(batch)
            if (done := done + 1) == steps:
                break
        epoch += 1
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        loss = float(_losses(task, model, task.splits["validation"][:]).mean())
    return seconds, loss, getattr(optimizer, "events", [])


def _step(task: Task, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Any], None]:
    def step(batch: Any) -> None:
        model.train()
        optimizer.zero_grad()
        task.loss(model(batch.inputs), batch.labels).backward()
        optimizer.step()

    return step


def _losses(task: Task, model: torch.nn.Module, batch: Any) -> torch.Tensor:
    model.eval()
    return task.losses(model(batch.inputs), batch.labels)


@click.command()
@click.option("--targets", default="MLP,ConvNet,TargetCNN", show_default=True)
@click.option("--limits", default="none,0.05", show_default=True, help="Values of max_overhead to compare.")
@click.option("--every", default=40, show_default=True, help="Interval between nowcasts [steps].")
@click.option("--threads", default=2, show_default=True)
@click.option("--steps", default=480, show_default=True)
@click.option("--seeds", default=5, show_default=True, help="Random seeds [count].")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(targets: str, limits: str, every: int, threads: int, steps: int, seeds: int, output: Path | None) -> None:
    """Compare trainings with and without nowcasts, each network in a fresh process."""
    rows = []
    for target in targets.split(","):
        for limit in limits.split(","):
            options = {"every": every, "max_overhead": None if limit == "none" else float(limit)}
            rows.append(in_fresh_process(measure, target, options, threads, steps, seeds))
    publish(f"nowcasts every {every} of {steps} steps, batches of {_BATCH}", rows, output)


if __name__ == "__main__":
    main()
