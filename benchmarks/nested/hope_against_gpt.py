"""HOPE, its ablations and a GPT with equally many weights on a text: perplexity after equally many steps.

Each network has the same depth and width, and is made as large as the GPT by the hidden width of its MLPs. Each trains
with Adam at the best of the given learning rates, chosen by the validation loss of another random seed, and on the same
batches. Perplexities are those of the validation split; `std` is over random seeds. `over GPT` compares the same random
seeds, and `CPU ms` is the CPU time of a step.
"""

import time
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import nn

from metaopt.core.devices import CPU
from metaopt.optimizers import optimizer_for
from metaopt.recording.training import train_steps
from metaopt.targets import get_target_model
from metaopt.tasks import Task, load_task
from metaopt.tasks.measure import batches_of, mean_loss

from .._measure import publish

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "Hope": {},
    "no memory": {"memory": "none"},
    "no self-modification": {"self_modifying": False},
    "titan": {"memory": "titan"},
    "no CMS": {"cms": False},
}
"""Options of HOPE by the name of a row."""

_TUNING_SEED = 1000  # the seeds of the result count from 0


class Trained(NamedTuple):
    """The validation loss of a training [nats per token], and the CPU time of a step [ms]."""

    loss: float
    step_ms: float


def weights_of(target: str, options: Mapping[str, Any]) -> int:
    """Number of weights of a network."""
    with torch.device("meta"):
        return sum(weights.numel() for weights in get_target_model(target, **options).parameters())


def sized(options: Mapping[str, Any], weights: int) -> dict[str, Any]:
    """Options of a HOPE with about as many weights, by the hidden width of its MLPs."""
    one, two = (weights_of("Hope", {**options, "hidden": hidden}) for hidden in (1, 2))
    return {**options, "hidden": max(1, round((weights - one) / (two - one)) + 1)}


def train(task: Task, target: str, options: Mapping[str, Any], lr: float, seed: int, steps: int) -> Trained:
    """Train a network from one random seed."""
    torch.manual_seed(seed)
    model: nn.Module = get_target_model(target, **options)
    batches = (batch for epoch in count() for batch in task.batches(16, seed, epoch))
    started = time.process_time()
    for _ in train_steps(model, optimizer_for(model, "Adam", lr, {}), task, islice(batches, steps), CPU):
        pass
    seconds = time.process_time() - started
    return Trained(mean_loss(model, task, batches_of(task.splits["validation"], task, CPU)), 1000 * seconds / steps)


@click.command()
@click.option("--text", type=click.Path(path_type=Path, exists=True), required=True, help="Text file.")
@click.option("--steps", default=400, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Random seeds of the result.")
@click.option("--lrs", default="0.001,0.003,0.01", show_default=True, help="Learning rates, by commas.")
@click.option("--width", default=64, show_default=True, help="Embedding width of all networks.")
@click.option("--layers", default=2, show_default=True, help="Blocks of all networks.")
@click.option("--networks", default=",".join(NETWORKS), show_default=True, help="Rows beside the GPT, by commas.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(
    text: Path, steps: int, seeds: int, lrs: str, width: int, layers: int, networks: str, output: Path | None
) -> None:
    """Train all networks and print their perplexities."""
    torch.set_num_threads(1)
    task = load_task("text", data_dir=text, tokenizer="characters", block_size=64)
    shape = {**task.model_facts, "n_layer": layers, "n_head": 4, "n_embd": width}
    size = weights_of("GPT", shape)
    cases = {"GPT": ("GPT", shape)}
    cases |= {name: ("Hope", sized({**shape, **NETWORKS[name]}, size)) for name in networks.split(",")}
    rows, losses_of_gpt = [], torch.zeros(seeds)
    for name, (target, options) in cases.items():
        tuning = {train(task, target, options, float(lr), _TUNING_SEED, steps).loss: float(lr) for lr in lrs.split(",")}
        lr = tuning[min(tuning)]
        runs = [train(task, target, options, lr, seed, steps) for seed in range(seeds)]
        losses = torch.tensor([run.loss for run in runs])
        losses_of_gpt = losses if target == "GPT" else losses_of_gpt
        ratios = (losses - losses_of_gpt).exp()
        rows.append(
            {
                "network": name,
                "weights": weights_of(target, options),
                "lr": lr,
                "perplexity": losses.exp().mean().item(),
                "std": losses.exp().std().item(),
                "over GPT": ratios.mean().item(),
                "worst": ratios.max().item(),
                "CPU ms": sum(run.step_ms for run in runs) / seeds,
            }
        )
    publish(f"HOPE and a GPT of equal size on {text.name}, {steps} steps, {seeds} random seeds", rows, output)


if __name__ == "__main__":
    main()
