"""A continuum memory that learns while it reads a text of another kind than it was trained on.

A language model with a continuum memory of three levels and no other memory is trained on one text, and then reads
another one once, from begin to end. The loss of each batch is measured before the batch is learned from. Only the
continuum memory learns; its levels are due every 1, 4 and 16 steps, or all at each step, or never. A GPT of about as
many weights and equally many steps reads the same text, frozen or with MLPs that learn at each step. What learns has
the best of the same learning rates, chosen with a random seed that is not reported.

Claims: the loss is at most 0.97 of that of frozen weights; and with less than half of the level updates, the gain is at
least 0.8 of the one of all levels at each step.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeVar

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metaopt.nested import Hope, HopeConfig
from metaopt.targets.transformer import GPT, GPTConfig

from .._measure import publish

_PERIODS = {"levels": (1, 4, 16), "all": (1, 1, 1)}
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
_BLOCK, _BATCH = 64, 8
_TUNING_SEED = 1000

M = TypeVar("M", bound=nn.Module)


def text_of(path: Path, characters: int) -> Tensor:
    """The first characters of a text as bytes."""
    data = path.read_text(encoding="utf-8")[:characters].encode("utf-8", "replace")
    return torch.tensor(list(data))


def trained(text: Tensor, steps: int, seed: int, **options: Any) -> Hope:
    """Train a model on random blocks of a text.

    Args:
        options: of the model, beside its sizes.
    """
    torch.manual_seed(seed)
    config = HopeConfig(vocab_size=256, block_size=_BLOCK, n_layer=2, n_head=4, n_embd=64, memory="none", **options)
    return _trained(Hope(config), text, steps)


def trained_gpt(text: Tensor, steps: int, seed: int) -> GPT:
    """Train a GPT of about as many weights in the same way."""
    torch.manual_seed(seed)
    config = GPTConfig(vocab_size=256, block_size=_BLOCK, n_layer=2, n_head=2, n_embd=62)
    return _trained(GPT(config), text, steps)


def _trained(model: M, text: Tensor, steps: int) -> M:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = torch.randint(len(text) - _BLOCK - 1, (4 * _BATCH,))
        blocks = torch.stack([text[start : start + _BLOCK + 1] for start in starts.tolist()])
        optimizer.zero_grad()
        loss_of(model, blocks).backward()
        optimizer.step()
    return model


class Read(NamedTuple):
    """What a model learned from a stream.

    Attributes:
        model: after the stream.
        loss: mean loss before each update [nats per byte].
        updates: of its levels [count].
    """

    model: Hope
    loss: float
    updates: int


def streamed(model: Hope, text: Tensor, periods: Sequence[int] | None, lr: float) -> Read:
    """Let a copy of a model read a text once.

    Args:
        periods: of the levels; None for frozen weights.
    """
    reader = Hope(HopeConfig(**{**model.config.to_mapping(), "periods": tuple(periods or (1, 1, 1))}))
    reader.load_state_dict(model.state_dict())
    levels = reader.learning_levels()
    parameters = [parameter for group in levels.parameters.values() for parameter in group]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    levels.attach(optimizer)
    loss = _read(reader, text, None if periods is None else optimizer)
    return Read(reader, loss, sum(levels.clock.counts().values()))


def loss_of_gpt(model: GPT, text: Tensor, lr: float) -> float:
    """The mean loss of a copy of a GPT that reads a text once; its MLPs learn at each step, unless `lr` is 0."""
    reader = copy.deepcopy(model)
    mlps = [block.get_submodule("mlp") for block in reader.blocks]
    optimizer = torch.optim.Adam([weights for mlp in mlps for weights in mlp.parameters()], lr=lr)
    return _read(reader, text, optimizer if lr else None)


def _read(reader: nn.Module, text: Tensor, optimizer: torch.optim.Optimizer | None) -> float:
    """The mean loss before each update [nats per byte]."""
    rows = text[: len(text) // _BATCH * _BATCH].view(_BATCH, -1)  # each row of a batch goes on in the next batch
    losses = []
    for begin in range(0, rows.shape[1] - _BLOCK - 1, _BLOCK):
        loss = loss_of(reader, rows[:, begin : begin + _BLOCK + 1])
        losses.append(loss.item())
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return fmean(losses)


def measure(first: Tensor, second: Tensor, steps: int, seed: int, rates: dict[str, float]) -> dict[str, Any]:
    """The losses of one random seed."""
    model = trained(first, steps, seed)
    frozen = streamed(model, second, None, 0.0).loss
    row: dict[str, Any] = {"seed": seed, "frozen": frozen}
    for name, periods in _PERIODS.items():
        _, row[name], row[f"updates {name}"] = streamed(model, second, periods, rates[name])
    row["ratio"] = row["levels"] / frozen
    gpt = trained_gpt(first, steps, seed)
    row["GPT frozen"], row["GPT"] = (loss_of_gpt(gpt, second, lr) for lr in (0.0, rates["GPT"]))
    row["over GPT"] = row["levels"] / row["GPT"]
    row["share of gain"] = (frozen - row["levels"]) / (frozen - row["all"])
    return row


def best_rates(first: Tensor, second: Tensor, steps: int) -> dict[str, float]:
    """The best learning rate of each setting, with a random seed of its own."""
    model, best = trained(first, steps, _TUNING_SEED), {}
    for name, periods in _PERIODS.items():
        losses = {lr: streamed(model, second, periods, lr).loss for lr in _RATES}
        best[name] = min(losses, key=losses.__getitem__)
    gpt = trained_gpt(first, steps, _TUNING_SEED)
    best["GPT"] = min(_RATES, key=lambda lr: loss_of_gpt(gpt, second, lr))
    return best


def loss_of(model: nn.Module, blocks: Tensor) -> Tensor:
    """The mean loss of blocks of one token more than a context [nats per byte]."""
    return cross_entropy(model(blocks[:, :-1]).flatten(0, 1), blocks[:, 1:].flatten())


@click.command()
@click.option("--first", type=click.Path(path_type=Path, exists=True), required=True, help="Text to train on.")
@click.option("--second", type=click.Path(path_type=Path, exists=True), required=True, help="Text to read afterwards.")
@click.option("--characters", default=100_000, show_default=True, help="Characters of the second text to read.")
@click.option("--steps", default=400, show_default=True, help="Training on the first text [steps].")
@click.option("--seeds", default=5, show_default=True, help="Random seeds [count].")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(first: Path, second: Path, characters: int, steps: int, seeds: int, output: Path | None) -> None:
    """Measure what a continuum memory learns from a shifted stream."""
    torch.set_num_threads(1)
    texts = text_of(first, 2_000_000), text_of(second, characters)
    rates = best_rates(*texts, steps)
    rows = [measure(*texts, steps, seed, rates) for seed in range(seeds)]
    publish(f"a shifted stream, learning rates {rates}", rows, output)
    for name in ("ratio", "share of gain", "over GPT"):
        values = [row[name] for row in rows]
        click.echo(f"{name}: {fmean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}")


if __name__ == "__main__":
    main()
