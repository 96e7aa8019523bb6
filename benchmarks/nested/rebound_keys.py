"""A memory on a stream in which keys get new values: the delta rule alone, and with momentum and forgetting.

At each token one of a fixed set of keys appears, with noise. Its value is replaced from time to time, and then the pair
is written. Just before, the memory is asked for the value that the key had at its last appearance. The error is the
squared error of the answer over the squared norm of that value, the mean over tokens.

Both rules get the best rates of a grid: `--grid` values of each of θ, η and α, and as many values of θ alone as that
grid has points. They are chosen on other random seeds than those of the result.

Goal: with momentum and forgetting at most 0.95 of the error of the delta rule alone, at the default noise and
replacement. `over a matrix` is the error of the full rule over that of the delta rule alone in a LinearMemory.
"""

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from metaopt.nested import AssociativeMemory, LinearMemory, Rates, TitanMemory

from .._measure import publish

GOAL = 0.95
_FIRST_TUNING_SEED = 1000  # the seeds of the result count from 0


class Stream(NamedTuple):
    """Pairs of several random seeds: [seeds, tokens, width], and what to ask for before each is written.

    Attributes:
        keys: with noise, of norm 1.
        values: what is written, of norm 1.
        bound: the value of the same key at its last appearance.
        asked: whether the error of a token counts: its key has appeared, and the first quarter is over.
    """

    keys: Tensor
    values: Tensor
    bound: Tensor
    asked: Tensor


def make_stream(seed: int, tokens: int, keys: int, width: int, noise: float, replaced: float) -> Stream:
    """The stream of one random seed.

    Args:
        keys: number of keys [count].
        noise: norm of the noise of a key over that of the key.
        replaced: how often a key appears with a new value [fraction of its appearances].
    """
    random = torch.Generator().manual_seed(seed)

    def units(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, width, generator=random), dim=-1)

    clean, current, fresh, disturbance = units(keys), units(keys), units(tokens), units(tokens)
    order = torch.randint(keys, (tokens,), generator=random)
    renewed = torch.rand(tokens, generator=random) < replaced
    written, bound = torch.empty(2, tokens, width)
    seen, asked = set(), torch.zeros(tokens, dtype=torch.bool)
    for token, key in enumerate(order.tolist()):
        bound[token] = current[key]
        asked[token] = key in seen and token >= tokens // 4
        seen.add(key)
        if renewed[token]:
            current[key] = fresh[token]
        written[token] = current[key]
    noisy = torch.nn.functional.normalize(clean[order] + noise * disturbance, dim=-1)
    return Stream(noisy[None], written[None], bound[None], asked[None])


def errors(memory: AssociativeMemory[Any], stream: Stream, settings: list[Rates]) -> Tensor:
    """The mean error of each setting on each random seed: [settings, seeds]."""
    seeds, tokens, width = stream.keys.shape
    batch = len(settings) * seeds
    lr, momentum, forget = (
        torch.tensor(rate).repeat_interleave(seeds)[:, None] for rate in zip(*settings, strict=True)
    )
    state, total = memory.reset(batch), torch.zeros(batch)
    with torch.no_grad():
        for token in range(tokens):
            key, value, bound = (
                part[:, token : token + 1].expand(seeds, 1, width).repeat(len(settings), 1, 1)
                for part in (stream.keys, stream.values, stream.bound)
            )
            found = (memory.read(state, key) - bound).square().sum(dim=(1, 2))
            total += torch.where(stream.asked[:, token].repeat(len(settings)), found, 0.0)
            state = memory.write(state, key, value, Rates(lr, momentum, forget))
    return total.view(len(settings), seeds) / stream.asked.sum(1)


def grids(points: int) -> tuple[list[Rates], list[Rates]]:
    """Settings of the delta rule alone, and with momentum and forgetting: equally many, over the same range of θ."""
    lr = torch.logspace(-2, 0, points).tolist()
    momentum = torch.linspace(0, 0.9, points).tolist()
    forget = [0.0, *torch.logspace(-4, -1, points - 1).tolist()]
    full = [Rates(*rates) for rates in product(lr, momentum, forget)]
    return [Rates(rate) for rate in torch.logspace(-2, 0, len(full)).tolist()], full


class Case(NamedTuple):
    """One stream, and the memory that stores it."""

    memory: str
    keys: int
    noise: float
    replaced: float


def compare(case: Case, tokens: int, width: int, points: int, seeds: int) -> dict[str, Any]:
    """The errors of both rules on one stream, their ratio on each random seed, and the delta rule in a matrix."""
    torch.manual_seed(0)
    matrix = LinearMemory(width, width)
    memory = matrix if case.memory == "linear" else TitanMemory(width, depth=2, chunk=1)

    def streams(first: int, count: int) -> Stream:
        chosen = range(first, first + count)
        made = [make_stream(seed, tokens, case.keys, width, case.noise, case.replaced) for seed in chosen]
        return Stream(*map(torch.cat, zip(*made, strict=True)))

    tuning, reported = streams(_FIRST_TUNING_SEED, max(2, seeds // 2)), streams(0, seeds)

    def tuned(memory: AssociativeMemory[Any], settings: list[Rates]) -> tuple[Rates, Tensor]:
        best = settings[int(errors(memory, tuning, settings).mean(1).argmin())]
        return best, errors(memory, reported, [best])[0]

    alone, all_three = grids(points)
    (theta, delta), (rates, full) = tuned(memory, alone), tuned(memory, all_three)
    in_matrix = delta if memory is matrix else tuned(matrix, alone)[1]
    ratios = full / delta
    return {
        **case._asdict(),
        "delta rule": delta.mean().item(),
        "θ alone": float(theta.lr),
        "full": full.mean().item(),
        "θ, η, α": f"{rates.lr:.3g}, {rates.momentum:.3g}, {rates.forget:.3g}",
        "ratio": ratios.mean().item(),
        "std": ratios.std().item(),
        "worst": ratios.max().item(),
        "over a matrix": (full / in_matrix).mean().item(),
        "ratios": ratios.tolist(),
        "goal": "reached" if ratios.mean() <= GOAL else "missed",
    }


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


@click.command()
@click.option("--memory", type=click.Choice(["linear", "titan"]), default="linear", show_default=True)
@click.option("--keys", default="24", show_default=True, help="Numbers of keys, by commas.")
@click.option("--noise", default="0.5", show_default=True, help="Norms of the noise of keys, by commas.")
@click.option("--replaced", default="0.1", show_default=True, help="Fractions of appearances with a new value.")
@click.option("--width", default=32, show_default=True, help="Width of keys and values.")
@click.option("--tokens", default=1000, show_default=True)
@click.option("--grid", default=7, show_default=True, help="Values of each rate.")
@click.option("--seeds", default=10, show_default=True, help="Random seeds of the result; half as many choose rates.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
def main(
    memory: str,
    keys: str,
    noise: str,
    replaced: str,
    width: int,
    tokens: int,
    grid: int,
    seeds: int,
    output: Path | None,
) -> None:
    """Compare both rules on each stream."""
    streams = product(map(int, _numbers(keys)), _numbers(noise), _numbers(replaced))
    rows = [compare(Case(memory, *stream), tokens, width, grid, seeds) for stream in streams]
    for row in rows:
        del row["ratios"]
    publish(f"a memory with re-bound keys, goal: a ratio of at most {GOAL}", rows, output)


if __name__ == "__main__":
    main()
