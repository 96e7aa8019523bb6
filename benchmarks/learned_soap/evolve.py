"""Find the numbers of `LearnedSOAP` by evolution over whole trainings:

    python -m benchmarks.learned_soap.evolve --data-dir DIR

DIR has cifar10_images and text. A generation draws some sets of numbers (CMA-ES, Hansen 2016, arXiv:1604.00772) around
the present mean, and trains each at three learning rates on one problem of each kind, with a new random seed. Its score
is the mean logarithm of the steps to the losses that SOAP has after a quarter, a half, three quarters and all of its
steps, relative to SOAP's own. Both are at their best learning rate, and at their best of the weights and three averages
of them. The file of results gets a line per generation; started again, the command goes on after the last one.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import cma
import numpy as np
from numpy.typing import NDArray

from metaopt.core.progress import progress
from metaopt.evaluation.statistics import first_at_or_below
from metaopt.weights.atomic import write_text

from .problems import Problem, problems
from .trainings import Trainings

STEPS, EVERY = 300, 15
"""Length of a training, and steps between two measurements [steps]."""

LEARNING_RATES, RATES_OF_SOAP = (0.0025, 0.005, 0.01), (0.002, 0.004, 0.008, 0.016)

SOAP = {
    "rate": 1.0,
    "momentum": 0.95,
    "gradient_weight": 0.0,
    "second_decay": 0.95,
    "basis_decay": 0.95,
    "output_rate": 1.0,
}
"""Numbers with which the rule is SOAP."""

SIZES = {**dict.fromkeys(SOAP, 0.5), "rate": 0.3}
"""A change of each number that may matter: of its logarithm, for decays of the logarithm of 1 − decay, and for the
weight of the gradient of itself."""

_DECAYS = ("momentum", "second_decay", "basis_decay")
_LATE = 1.15  # steps of a training that does not reach a loss, relative to all its steps

log = logging.getLogger(__name__)

Point = Sequence[float]


def numbers(point: Point) -> dict[str, float]:
    """The numbers of a point, whose coordinates are changes of SOAP's numbers in `SIZES`."""
    found = {}
    for (name, start), change in zip(SOAP.items(), point, strict=True):
        step = SIZES[name] * float(change)
        if name in _DECAYS:
            found[name] = max(1 - (1 - start) * math.exp(step), 0.0)
        else:
            found[name] = max(start + step, 0.0) if name == "gradient_weight" else start * math.exp(step)
    return found


def scores(problem: Problem, seed: int, points: Sequence[Point]) -> NDArray[np.float64]:
    """The score of each point on one problem; 0 is SOAP's, and negative is faster."""
    rules = [_at(numbers(point), rate) for point in points for rate in LEARNING_RATES]
    rules += [_at(SOAP, rate) for rate in RATES_OF_SOAP]
    losses = Trainings(problem, seed, rules).losses(STEPS, EVERY).numpy()
    lowest = np.minimum.accumulate(losses, axis=-1).swapaxes(0, 1)  # [trainings, read-outs, points]
    of_soap = lowest[-len(RATES_OF_SOAP) :].reshape(-1, lowest.shape[-1])
    best = of_soap[of_soap[:, -1].argmin()]
    ends = [lowest.shape[-1] * part // 4 for part in (1, 2, 3, 4)]
    curves = lowest[: -len(RATES_OF_SOAP)].reshape(len(points), -1, lowest.shape[-1])
    return np.array([min(_score(curve, best, ends) for curve in of_point) for of_point in curves])


def _score(curve: NDArray[np.float32], best: NDArray[np.float32], ends: Sequence[int]) -> float:
    return float(np.mean([np.log(_reached(curve, float(best[end - 1])) / end) for end in ends]))


def _reached(curve: NDArray[np.float32], loss: float) -> float:
    """The measurement at which a falling curve reaches a loss, interpolated [count]."""
    index = first_at_or_below(loss, curve.tolist())
    if index is None:
        return _LATE * len(curve)
    if index == 0:
        return 1.0
    return index + float((curve[index - 1] - loss) / (curve[index - 1] - curve[index]))


def _at(found: Mapping[str, float], rate: float) -> dict[str, float]:
    return {**{name: value for name, value in found.items() if name != "rate"}, "lr": rate * found["rate"]}


def evolve(
    kinds: Mapping[str, Sequence[Problem]], results: Path, *, generations: int, population: int = 12, seed: int = 0
) -> None:
    """Run the generations that the results do not have yet.

    Args:
        kinds: problems by kind, of which each generation trains one of each.
        results: file with a line of JSON per generation: the scores of the points, those of the mean before it, and
            the numbers of the mean after it.
        generations: how many there are in the end [count].
        population: points of a generation [count].
    """
    options = {"popsize": population, "seed": seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy([0.0] * len(SOAP), 1.0, options)
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for line in known:
        strategy.tell(strategy.ask(), line["scores"])  # the same draws as before
    with progress(generations, "evolution", "generation") as bar:
        bar.update(len(known))
        for generation in range(len(known), generations):
            draw = np.random.default_rng((seed, generation))
            points = strategy.ask()
            of_kinds = [
                scores(choices[int(draw.integers(len(choices)))], int(draw.integers(10**6)), [*points, strategy.mean])
                for choices in kinds.values()
            ]
            *of_points, of_mean = np.mean(of_kinds, axis=0).tolist()
            by_kind = {name: float(of_kind[-1]) for name, of_kind in zip(kinds, of_kinds, strict=True)}
            strategy.tell(points, of_points)
            found = numbers(strategy.mean)
            known.append({"scores": of_points, "of_mean": of_mean, "of_mean_by_kind": by_kind, "numbers": found})
            write_text(results, "".join(json.dumps(line) + "\n" for line in known))
            log.info("generation %d: %.3f of SOAP's steps; %s", generation, math.exp(of_mean), found)
            bar.update(1)


@click.command(help=__doc__)
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), default=Path("reports/learned_soap.jsonl"))
@click.option("--generations", type=click.IntRange(1), default=40, show_default=True)
@click.option("--population", type=click.IntRange(4), default=12, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(data_dir: Path, results: Path, generations: int, population: int, seed: int) -> None:
    """Evolve, and log the numbers of each generation."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    results.parent.mkdir(parents=True, exist_ok=True)
    evolve(problems(data_dir), results, generations=generations, population=population, seed=seed)


if __name__ == "__main__":
    main()
