"""How far predictions are from anything seen in meta-training: an optimizer that has memorised gives copies of it.

References: Zeng et al. 2025, arXiv:2506.07998 (generated weights compared with the nearest ones of training); Ainsworth
et al. 2022, arXiv:2209.04836 (weight matching). Departs: distances are relative to that between two trainings.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from ..core.errors import TrajectoryError
from ..generative.base import GenerativeOptimizer
from ..trajectories import Trajectory
from ..trajectories.trajectory import find_trajectories
from ..weights.layout import Layout
from .controls import Snapshots, state_at
from .paired_runs import RunSetup
from .results import Novelty

_SWEEPS = 5
_SNAPSHOTS_PER_TRAJECTORY = 8  # evenly spread; bounds time
_SAME_LOSS = 1e-3  # relative; what rounding does to the loss of a network whose hidden units changed places

Weights = Float[Tensor, " weights"]


class Link(NamedTuple):
    """A hidden layer: which tensors have its units as rows, and which one as (groups of) columns."""

    units: int
    rows: tuple[str, ...]
    columns: str


def chain(layout: Layout) -> list[Link] | None:
    """The hidden layers of a network whose layers follow on one another, as their shapes tell; None for others."""
    layers: list[list[int]] = []
    for place, tensor in enumerate(layout.tensors):
        if len(tensor.shape) > 1:
            layers.append([place])
        elif not layers or tensor.shape != layout.tensors[layers[-1][0]].shape[:1]:
            return None
        else:
            layers[-1].append(place)
    links = []
    for layer, following in pairwise(layers):
        units, after = layout.tensors[layer[0]].shape[0], layout.tensors[following[0]]
        if after.shape[1] % units:
            return None
        links.append(Link(units, tuple(layout.tensors[place].name for place in layer), after.name))
    return links


def permuted(weights: Weights, layout: Layout, link: Link, order: Tensor) -> Weights:
    """The same network with the units of a hidden layer in another order."""
    named = dict(layout.unflatten(weights.clone()))
    for name in link.rows:
        named[name].copy_(named[name][order].clone())
    columns = named[link.columns]
    grouped = columns.reshape(len(columns), link.units, -1)
    columns.copy_(grouped[:, order].reshape(columns.shape))
    return layout.flatten(named)


def matched(weights: Weights, reference: Weights, layout: Layout, links: Sequence[Link]) -> Weights:
    """The same network with its hidden units in the order that comes closest to a reference, layer by layer."""
    for _ in range(_SWEEPS):
        moved = False
        for link in links:
            alike = _profile(reference, layout, link) @ _profile(weights, layout, link).T
            order = torch.from_numpy(linear_sum_assignment(alike.numpy(), maximize=True)[1])
            if not torch.equal(order, torch.arange(link.units)):
                weights, moved = permuted(weights, layout, link, order), True
        if not moved:
            break
    return weights


def _profile(weights: Weights, layout: Layout, link: Link) -> Float[Tensor, "units numbers"]:
    """All weights that come into or leave each unit of a hidden layer."""
    named = layout.unflatten(weights)
    columns = named[link.columns]
    leaving = columns.reshape(len(columns), link.units, -1).transpose(0, 1)
    return torch.cat([*(named[name].reshape(link.units, -1) for name in link.rows), leaving.flatten(1)], dim=1)


class SeenWeights:
    """Weights seen in meta-training, and how near others are to them."""

    def __init__(self, setup: RunSetup, folder: Path) -> None:
        """Read those snapshots that have the layout of the bench's network.

        Raises:
            TrajectoryError: there are none.
        """
        self._bench, self._layout = setup, setup.layout
        trajectories = find_trajectories(folder)
        seen = [weights for each in trajectories for weights in _snapshots(each, self._layout)]
        if not seen:
            raise TrajectoryError(
                f"none of the {len(trajectories)} trajectories in {folder} has the layout of "
                f"{setup.config.target_model} with its options; leave out `seen`, or give one whose networks are alike"
            )
        self._seen = seen
        self._links = self._verified_chain()

    def novelty(self, optimizer: GenerativeOptimizer, runs: Sequence[Snapshots]) -> Novelty:
        """Distances of an optimizer's predictions from states of some runs.

        Args:
            runs: of several random seeds, at the same steps; neighbours give the distance between two trainings.
        """
        of_predictions, of_states = [], []
        for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
            steps = self._steps()
            unit = [self._distance(run[step], other[step]) for step in steps]
            pairs = [(run[s], state_at(self._bench, optimizer, run, s).predict(optimizer, self._layout)) for s in steps]
            states, predictions = zip(*pairs, strict=True)
            of_predictions.append(min(self._nearest(p) / u for p, u in zip(predictions, unit, strict=True)))
            of_states.append(min(self._nearest(w) / u for w, u in zip(states, unit, strict=True)))
        return Novelty(tuple(of_predictions), tuple(of_states), len(self._seen), self._links is not None)

    def _steps(self) -> list[int]:
        """The first, a middle and the last nowcast."""
        every, last = self._bench.config.every, self._bench.config.steps // self._bench.config.every
        return [every * number for number in sorted({1, (1 + last) // 2, last})]

    def _nearest(self, weights: Weights) -> float:
        return min((self._distance(seen, weights) for seen in self._seen), default=math.inf)

    def _distance(self, weights: Weights, reference: Weights) -> float:
        if self._links is not None:
            weights = matched(weights, reference, self._layout, self._links)
        return float((weights - reference).norm())

    def _verified_chain(self) -> list[Link] | None:
        """The chain of hidden layers, if changing places in it does not change the loss: shapes alone can mislead."""
        links = chain(self._layout)
        weights = self._bench.layout.read(self._bench.build())
        before = self._bench.loss_of(weights)
        for link in links or []:
            weights = permuted(weights, self._layout, link, torch.arange(link.units).flip(0))
        return links if math.isclose(self._bench.loss_of(weights), before, rel_tol=_SAME_LOSS) else None


def _snapshots(trajectory: Trajectory, layout: Layout) -> list[Weights]:
    places = torch.linspace(0, len(trajectory) - 1, _SNAPSHOTS_PER_TRAJECTORY).round().int().unique().tolist()
    return [trajectory.weights(place) for place in places if trajectory.segment(place).layout == layout]
