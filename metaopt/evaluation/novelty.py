"""Novelty: distances of predictions to the nearest weights of meta-training, to detect optimizers that memorised.

References: Zeng et al. 2025, arXiv:2506.07998 (generated weights compared with the nearest ones of training); Ainsworth
et al. 2022, arXiv:2209.04836 (weight matching). Departs: distances are relative to the distance between two trainings.
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
from .paired_runs import RunSetup
from .predictions import Snapshots, state_at
from .results import Novelty

_SWEEPS = 5
_SNAPSHOTS_PER_TRAJECTORY = 8  # evenly spaced; bounds the time
_SAME_LOSS = 1e-3  # relative tolerance: rounding changes the loss of a network with permuted hidden units

Weights = Float[Tensor, " weights"]


class HiddenLayer(NamedTuple):
    """A hidden layer: its units are the rows of some tensors, and (groups of) columns of the tensor after them."""

    units: int
    rows: tuple[str, ...]
    columns: str


def hidden_layers(layout: Layout) -> list[HiddenLayer] | None:
    """The hidden layers of a sequential network, inferred from the shapes of its tensors; None for other networks."""
    layers: list[list[int]] = []
    for index, tensor in enumerate(layout.tensors):
        if len(tensor.shape) > 1:
            layers.append([index])
        elif not layers or tensor.shape != layout.tensors[layers[-1][0]].shape[:1]:
            return None
        else:
            layers[-1].append(index)
    hidden = []
    for layer, following in pairwise(layers):
        units, after = layout.tensors[layer[0]].shape[0], layout.tensors[following[0]]
        if after.shape[1] % units:
            return None
        hidden.append(HiddenLayer(units, tuple(layout.tensors[index].name for index in layer), after.name))
    return hidden


def permute_units(weights: Weights, layout: Layout, layer: HiddenLayer, order: Tensor) -> Weights:
    """The same function with the units of a hidden layer in another order."""
    named = dict(layout.unflatten(weights.clone()))
    for name in layer.rows:
        named[name].copy_(named[name][order].clone())
    columns = named[layer.columns]
    grouped = columns.reshape(len(columns), layer.units, -1)
    columns.copy_(grouped[:, order].reshape(columns.shape))
    return layout.flatten(named)


def match_units(weights: Weights, reference: Weights, layout: Layout, layers: Sequence[HiddenLayer]) -> Weights:
    """The same function with its hidden units in the order that is closest to a reference, layer by layer."""
    for _ in range(_SWEEPS):
        permuted = False
        for layer in layers:
            similarity = _unit_weights(reference, layout, layer) @ _unit_weights(weights, layout, layer).T
            order = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
            if not torch.equal(order, torch.arange(layer.units)):
                weights, permuted = permute_units(weights, layout, layer, order), True
        if not permuted:
            break
    return weights


def _unit_weights(weights: Weights, layout: Layout, layer: HiddenLayer) -> Float[Tensor, "units weights_of_unit"]:
    """All incoming and outgoing weights of each unit of a hidden layer."""
    named = layout.unflatten(weights)
    columns = named[layer.columns]
    outgoing = columns.reshape(len(columns), layer.units, -1).transpose(0, 1)
    return torch.cat([*(named[name].reshape(layer.units, -1) for name in layer.rows), outgoing.flatten(1)], dim=1)


class SeenWeights:
    """Snapshots of meta-training, and the distances of predictions to them.

    Args:
        setup: whose network the snapshots must have.
        folder: of the trajectories of meta-training.
    Raises:
        TrajectoryError: no trajectory has the layout of the network.
    """

    def __init__(self, setup: RunSetup, folder: Path) -> None:
        self._setup, self._layout = setup, setup.layout
        trajectories = find_trajectories(folder)
        seen = [weights for each in trajectories for weights in _spaced_snapshots(each, self._layout)]
        if not seen:
            raise TrajectoryError(
                f"none of the {len(trajectories)} trajectories in {folder} has the layout of "
                f"{setup.config.target_model} with its options; leave out `seen`, or give a folder with trajectories "
                "of this network"
            )
        self._seen = seen
        self._hidden_layers = self._verified_hidden_layers()

    def novelty(self, optimizer: GenerativeOptimizer, runs: Sequence[Snapshots]) -> Novelty:
        """Measure the novelty of an optimizer's predictions from states of some runs.

        Args:
            runs: snapshots of several random seeds at the same steps; the distance of neighbours is the unit.
        """
        nearest, of_states = [], []
        for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
            steps = self._steps()
            units = [self._distance(run[step], other[step]) for step in steps]
            states = [run[step] for step in steps]
            predictions = [
                state_at(self._setup, optimizer, run, step).predict(optimizer, self._layout) for step in steps
            ]
            nearest.append(min(self._nearest(w) / unit for w, unit in zip(predictions, units, strict=True)))
            of_states.append(min(self._nearest(w) / unit for w, unit in zip(states, units, strict=True)))
        return Novelty(tuple(nearest), tuple(of_states), len(self._seen), self._hidden_layers is not None)

    def _steps(self) -> list[int]:
        """The first, a middle and the last nowcast."""
        every, last = self._setup.config.every, self._setup.config.steps // self._setup.config.every
        return [every * number for number in sorted({1, (1 + last) // 2, last})]

    def _nearest(self, weights: Weights) -> float:
        return min((self._distance(seen, weights) for seen in self._seen), default=math.inf)

    def _distance(self, weights: Weights, reference: Weights) -> float:
        if self._hidden_layers is not None:
            weights = match_units(weights, reference, self._layout, self._hidden_layers)
        return float((weights - reference).norm())

    def _verified_hidden_layers(self) -> list[HiddenLayer] | None:
        """The hidden layers, if a permutation of their units does not change the loss: shapes alone can mislead."""
        layers = hidden_layers(self._layout)
        weights = self._layout.read(self._setup.build())
        before = self._setup.validation_loss(weights)
        for layer in layers or []:
            weights = permute_units(weights, self._layout, layer, torch.arange(layer.units).flip(0))
        return layers if math.isclose(self._setup.validation_loss(weights), before, rel_tol=_SAME_LOSS) else None


def _spaced_snapshots(trajectory: Trajectory, layout: Layout) -> list[Weights]:
    indices = torch.linspace(0, len(trajectory) - 1, _SNAPSHOTS_PER_TRAJECTORY).round().int().unique().tolist()
    return [trajectory.weights(index) for index in indices if trajectory.segment(index).layout == layout]
