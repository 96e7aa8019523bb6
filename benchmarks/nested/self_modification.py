"""Is it worth something that a memory makes its own keys, values and rates? Recall with and without it.

A sequence stores pairs of a key and one of eight values, and asks for the value of a key after each of them. With the
task `rebound`, values are replaced while the sequence goes on. With `rotated`, all keys are rotated in the middle, by a
rotation of the sequence's own, so what was stored for them must be stored again.

Two networks of a linear layer, a `SelfModifier` and a linear layer are trained for equally many steps: one whose keys,
values and rates adapt, and one in which they are fixed projections. Both have as many parameters. Each gets the best
learning rate of a few, by the loss on another random seed than those of the result.
"""

from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

from metaopt.nested import SelfModifier

from .._measure import publish

KEYS, VALUES, WIDTH = 6, 8, 12  # of a sequence, to choose from, and of a key
TASKS = ("rebound", "rotated")
_TUNING_SEED = 1000  # the seeds of the result count from 0
_TEST_SEED = 10_000
_UNASKED = -1


class Setting(NamedTuple):
    """What is trained, for how long."""

    task: str
    chunk: int
    steps: int
    pairs: int


def make_batch(setting: Setting, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences in which each pair is followed by a question.

    Returns: inputs [batch, 2 · pairs, WIDTH + VALUES + 1] and the values that are asked for, -1 elsewhere.
    """
    keys = functional.normalize(torch.randn(batch, KEYS, WIDTH, generator=random), dim=-1)
    values = torch.randint(VALUES, (batch, KEYS), generator=random)
    rotation = torch.linalg.qr(torch.randn(batch, WIDTH, WIDTH, generator=random)).Q
    rows, inputs, targets = torch.arange(batch), [], []
    for number in range(setting.pairs):
        if setting.task == "rotated" and number == setting.pairs // 2:
            keys = keys @ rotation
        stored = torch.randint(KEYS, (batch,), generator=random) if number >= KEYS else torch.full((batch,), number)
        if setting.task == "rebound" and number >= KEYS:
            replaced = torch.rand(batch, generator=random) < 0.3
            fresh = torch.randint(VALUES, (batch,), generator=random)
            values[rows, stored] = torch.where(replaced, fresh, values[rows, stored])
        asked = torch.randint(min(KEYS, number + 1), (batch,), generator=random)
        shown = functional.one_hot(values[rows, stored], VALUES).float()
        inputs.append(torch.cat([keys[rows, stored], shown, torch.zeros(batch, 1)], dim=-1))
        inputs.append(torch.cat([keys[rows, asked], torch.zeros_like(shown), torch.ones(batch, 1)], dim=-1))
        targets += [torch.full((batch,), _UNASKED), values[rows, asked]]
    return torch.stack(inputs, dim=1), torch.stack(targets, dim=1)


class Network(nn.Module):
    """A linear layer, the memories, and a linear layer."""

    def __init__(self, adaptive: bool, chunk: int, width: int = 24) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH + VALUES + 1, width), nn.Linear(width, VALUES)
        self.memories = SelfModifier(width, chunk=chunk, adaptive=adaptive)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the values: [batch, tokens, VALUES]."""
        return self.last(self.memories(self.first(inputs))[0])


def train(setting: Setting, adaptive: bool, lr: float, seed: int) -> tuple[float, float]:
    """Loss and accuracy on new sequences, after the training of one network."""
    torch.manual_seed(seed)
    network = Network(adaptive, setting.chunk)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, setting.steps)
    for _ in range(setting.steps):
        inputs, targets = make_batch(setting, 32, random)
        loss = functional.cross_entropy(network(inputs).flatten(0, 1), targets.flatten(), ignore_index=_UNASKED)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    inputs, targets = make_batch(setting, 256, torch.Generator().manual_seed(_TEST_SEED))
    with torch.no_grad():
        logits = network(inputs)[targets != _UNASKED]
    targets = targets[targets != _UNASKED]
    return functional.cross_entropy(logits, targets).item(), (logits.argmax(-1) == targets).float().mean().item()


def compare(setting: Setting, rates: list[float], seeds: int) -> dict[str, Any]:
    """Loss and accuracy of both networks, each at its best learning rate."""
    row: dict[str, Any] = setting._asdict()
    losses = {}
    for name, adaptive in (("adaptive", True), ("fixed", False)):
        best = min(rates, key=lambda lr: train(setting, adaptive, lr, _TUNING_SEED)[0])
        found = torch.tensor([train(setting, adaptive, best, seed) for seed in range(seeds)])
        losses[name] = found[:, 0]
        row |= {f"{name}: lr": best, f"{name}: loss": found[:, 0].mean().item()}
        row |= {f"{name}: accuracy": found[:, 1].mean().item()}
    return row | {"adaptive is better on": f"{int((losses['adaptive'] < losses['fixed']).sum())} of {seeds}"}


@click.command()
@click.option("--tasks", default=",".join(TASKS), show_default=True, help="Names of tasks, by commas.")
@click.option("--chunk", default=8, show_default=True, help="Tokens of a chunk.")
@click.option("--steps", default=300, show_default=True, help="Updates of a training.")
@click.option("--pairs", default=24, show_default=True, help="Pairs of a sequence.")
@click.option("--rates", default="0.003,0.01,0.03", show_default=True, help="Learning rates to choose from, by commas.")
@click.option("--seeds", default=3, show_default=True, help="Random seeds of the result.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(tasks: str, chunk: int, steps: int, pairs: int, rates: str, seeds: int, output: Path | None) -> None:
    """Train both networks on each task."""
    torch.set_num_threads(1)
    lr = [float(rate) for rate in rates.split(",")]
    rows = [compare(Setting(task, chunk, steps, pairs), lr, seeds) for task in tasks.split(",")]
    publish("recall with memories that modify themselves", rows, output)


if __name__ == "__main__":
    main()
