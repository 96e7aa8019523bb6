"""HOPE, its ablations and a GPT with equally many weights: loss, perplexity and accuracy after equally many steps.

Each network has the same depth and width, and is made as large as the GPT by the hidden width of its MLPs. Each trains
with Adam at the best of the given learning rates, chosen by the validation loss of another random seed, and on the same
batches. Figures are those of the validation split; `std` is over random seeds. `over GPT` is the ratio of perplexities
with the same random seed, and `CPU ms` the CPU time of a step.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import count, islice
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import nn

from metaopt.core.config import Options
from metaopt.core.devices import CPU
from metaopt.core.errors import Diverged
from metaopt.core.values import coerce
from metaopt.optimizers import optimizer_for
from metaopt.recording.training import train_steps
from metaopt.targets import get_target_model
from metaopt.tasks import Task, load_task
from metaopt.tasks.measure import batches_of, measure

from .._measure import publish
from .._stored import Stored

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "Hope": {},
    "no memory": {"memory": "none"},
    "no CMS": {"cms": False},
    "no self-modification": {"self_modifying": False},
    "titan": {"memory": "titan"},
    "titan without momentum": {"memory": "titan", "momentum": False},
    "titan without decay": {"memory": "titan", "decay": False},
    "window": {"window": 8},
    "window without memory": {"window": 8, "memory": "none"},
}
"""Options of HOPE by the name of a row. With a window, attention sees the last 8 tokens only."""

GPT = "GPT"
_TUNING_SEED = 1000  # the seeds of the result count from 0


class Setting(NamedTuple):
    """What all networks of a comparison have in common.

    Attributes:
        task, options: name and options of the task.
        layers, width: blocks, and embedding width.
        steps, batch: steps of a training, and examples of each.
        lrs: learning rates to choose from.
        seeds: random seeds of the result [count].
    """

    task: str
    options: Mapping[str, Any]
    layers: int = 2
    width: int = 64
    steps: int = 400
    batch: int = 16
    lrs: tuple[float, ...] = (0.001, 0.003, 0.01)
    seeds: int = 3


class Trained(NamedTuple):
    """The validation loss [nats per token] and accuracy of a training, and the CPU time of a step [ms]."""

    loss: float
    accuracy: float
    step_ms: float


class Compared(NamedTuple):
    """A network, its number of weights and learning rate, and its trainings, one per random seed."""

    network: str
    weights: int
    lr: float
    runs: Sequence[Trained]

    @property
    def losses(self) -> torch.Tensor:
        """The validation loss of each random seed [nats per token]."""
        return torch.tensor([run.loss for run in self.runs])

    @property
    def accuracies(self) -> torch.Tensor:
        """The accuracy of each random seed [0 to 1]."""
        return torch.tensor([run.accuracy for run in self.runs])


def weights_of(target: str, options: Mapping[str, Any]) -> int:
    """Number of weights of a network."""
    with torch.device("meta"):
        return sum(weights.numel() for weights in get_target_model(target, **options).parameters())


def sized(options: Mapping[str, Any], weights: int) -> dict[str, Any]:
    """Options of a HOPE with about as many weights, by the hidden width of its MLPs."""
    one, two = (weights_of("Hope", {**options, "hidden": hidden}) for hidden in (1, 2))
    return {**options, "hidden": max(1, round((weights - one) / (two - one)) + 1)}


def train(task: Task, target: str, options: Mapping[str, Any], lr: float, seed: int, setting: Setting) -> Trained:
    """Train a network from one random seed. A training that diverges has an infinite loss."""
    torch.manual_seed(seed)
    model: nn.Module = get_target_model(target, **options)
    batches = (batch for epoch in count() for batch in task.batches(setting.batch, seed, epoch))
    started = time.process_time()
    try:
        for _ in train_steps(model, optimizer_for(model, "Adam", lr, {}), task, islice(batches, setting.steps), CPU):
            pass
    except Diverged:
        return Trained(inf, 0.0, 0.0)
    seconds = time.process_time() - started
    found = measure(model, task, batches_of(task.splits["validation"], task, CPU))
    return Trained(found["loss"], found["accuracy"], 1000 * seconds / setting.steps)


def compare(setting: Setting, networks: Sequence[str], stored: Stored | None = None) -> list[Compared]:
    """Train the GPT and the given networks, each at its best learning rate.

    Args:
        stored: finished trainings, which are not repeated.
    """
    stored = stored or Stored()
    task = load_task(setting.task, **setting.options)
    shape = {**task.model_facts, "n_layer": setting.layers, "n_head": 4, "n_embd": setting.width}
    size = weights_of(GPT, shape)
    cases = {GPT: (GPT, shape)}
    cases |= {name: ("Hope", sized({**shape, **NETWORKS[name]}, size)) for name in networks}
    common = {"task": setting.task, **setting.options, "steps": setting.steps, "batch": setting.batch}
    common = {name: str(value) for name, value in common.items()}

    def trained(target: str, options: Mapping[str, Any], lr: float, seed: int) -> Trained:
        settings = {**common, "target": target, "target options": options, "lr": lr, "seed": seed}
        return Trained(*stored.of(settings, lambda: train(task, target, options, lr, seed, setting)))

    compared = []
    for name, (target, options) in cases.items():
        tuning = {lr: trained(target, options, lr, _TUNING_SEED).loss for lr in setting.lrs}
        lr = min(tuning, key=tuning.__getitem__)
        runs = [trained(target, options, lr, seed) for seed in range(setting.seeds)]
        compared.append(Compared(name, weights_of(target, options), lr, runs))
    return compared


def rows_of(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """A row per network; the first one is the GPT."""
    return [
        {
            "network": each.network,
            "weights": each.weights,
            "lr": each.lr,
            "perplexity": each.losses.exp().mean().item(),
            "std": each.losses.exp().std(correction=min(1, len(each.runs) - 1)).item(),
            "over GPT": (ratios := (each.losses - compared[0].losses).exp()).mean().item(),
            "worst": ratios.max().item(),
            "accuracy": each.accuracies.mean().item(),
            "least accuracy": each.accuracies.min().item(),
            "CPU ms": sum(run.step_ms for run in each.runs) / len(each.runs),
        }
        for each in compared
    ]


@click.command()
@click.option("--task", default="text", show_default=True, help="Name of the task.")
@click.option("--text", type=click.Path(path_type=Path, exists=True), help="Text file of the task, if it reads one.")
@click.option("--task-options", default="", help="Options of the task, such as `pairs=4 block_size=32`.")
@click.option("--steps", default=400, show_default=True)
@click.option("--batch", default=16, show_default=True, help="Examples of a step.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds of the result.")
@click.option("--lrs", default="0.001,0.003,0.01", show_default=True, help="Learning rates, by commas.")
@click.option("--width", default=64, show_default=True, help="Embedding width of all networks.")
@click.option("--layers", default=2, show_default=True, help="Blocks of all networks.")
@click.option("--networks", default="Hope,no memory", show_default=True, help=f"By commas, of {', '.join(NETWORKS)}.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(
    task: str,
    text: Path | None,
    task_options: str,
    steps: int,
    batch: int,
    seeds: int,
    lrs: str,
    width: int,
    layers: int,
    networks: str,
    output: Path | None,
) -> None:
    """Train all networks and print their perplexities and accuracies."""
    torch.set_num_threads(1)
    options = coerce("task_options", task_options, Options)
    if task == "text":
        options = {"tokenizer": "characters", "block_size": 64, **options}
    options |= {"data_dir": text} if text is not None else {}
    rates = tuple(map(float, lrs.split(",")))
    setting = Setting(task, options, layers, width, steps, batch, rates, seeds)
    rows = rows_of(compare(setting, networks.split(",")))
    where = text.name if text is not None else task
    publish(f"HOPE and a GPT of equal size on {where}, {steps} steps, {seeds} random seeds", rows, output)


if __name__ == "__main__":
    main()
