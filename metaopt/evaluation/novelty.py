"""Novelty: distances from predictions to the nearest weights in the meta-training data.

Small distances indicate that an optimizer memorised this data. References: Zeng et al. 2025, arXiv:2506.07998
(generated weights are compared with the nearest training weights); Ainsworth et al. 2022, arXiv:2209.04836 (weight
matching). Unlike in these papers, distances are divided by the distance between two runs with different random seeds.
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

_MAX_PASSES = 5  # maximum number of passes of the weight matching over the layers
_SNAPSHOTS_PER_TRAJECTORY = 8  # evenly spaced; limits the computation time
_LOSS_TOLERANCE = 1e-3  # relative; a permutation of hidden units changes the loss only by rounding errors

Weights = Float[Tensor, " weights"]


class HiddenLayer(NamedTuple):
    """A hidden layer.

    Attributes:
        units: number of units [count].
        rows: names of the tensors of the layer; each row of these tensors belongs to one unit.
        columns: name of the weight tensor of the next layer; each unit has one column, or a group of adjacent columns.
    """

    units: int
    rows: tuple[str, ...]
    columns: str


def hidden_layers(layout: Layout) -> list[HiddenLayer] | None:
    """Infer the hidden layers from the tensor shapes; None if the shapes are not those of a sequential network."""
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
    """Permute the units of a hidden layer. The network still computes the same function."""
    named = dict(layout.unflatten(weights.clone()))
    for name in layer.rows:
        named[name].copy_(named[name][order].clone())
    columns = named[layer.columns]
    grouped = columns.reshape(len(columns), layer.units, -1)
    columns.copy_(grouped[:, order].reshape(columns.shape))
    return layout.flatten(named)


def match_units(weights: Weights, reference: Weights, layout: Layout, layers: Sequence[HiddenLayer]) -> Weights:
    """Permute the hidden units, one layer at a time, to reduce the distance to a reference (weight matching)."""
    for _ in range(_MAX_PASSES):
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
    """The incoming weights, the bias and the outgoing weights of each unit of a hidden layer."""
    named = layout.unflatten(weights)
    columns = named[layer.columns]
    outgoing = columns.reshape(len(columns), layer.units, -1).transpose(0, 1)
    return torch.cat([*(named[name].reshape(layer.units, -1) for name in layer.rows), outgoing.flatten(1)], dim=1)


class SeenWeights:
    """Snapshots from the meta-training data. Measures the distances from predictions to them.

    Args:
        setup: setup of the evaluated runs. Only snapshots with the layout of its network are used.
        folder: folder with the trajectories used for meta-training.
    Raises:
        TrajectoryError: there is no trajectory with the layout of the network.
    """

    def __init__(self, setup: RunSetup, folder: Path) -> None:
        self._setup, self._layout = setup, setup.layout
        trajectories = find_trajectories(folder)
        seen = [weights for trajectory in trajectories for weights in _spaced_snapshots(trajectory, self._layout)]
        if not seen:
            raise TrajectoryError(
                f"none of the {len(trajectories)} trajectories in {folder} has the layout of "
                f"{setup.config.target_model} with the configured target_options. Omit `seen`, or set it to a folder "
                "with trajectories of this network"
            )
        self._seen = seen
        self._hidden_layers = self._verified_hidden_layers()

    def novelty(self, optimizer: GenerativeOptimizer, runs: Sequence[Snapshots]) -> Novelty:
        """Measure the distances from an optimizer's predictions to the nearest snapshots of the meta-training data.

        Each distance is divided by the distance between the run and the next run in `runs`, at the same step. The
        result contains the smallest distance of each run over the first, the middle and the last nowcast.

        Args:
            runs: snapshots of at least two runs with different random seeds, at the same steps.
        """
        prediction_distances, state_distances = [], []
        for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
            steps = self._steps()
            scales = [self._distance(run[step], other[step]) for step in steps]
            states = [run[step] for step in steps]
            predictions = [
                state_at(self._setup, optimizer, run, step).predict(optimizer, self._layout) for step in steps
            ]
            prediction_distances.append(self._smallest_distance(predictions, scales))
            state_distances.append(self._smallest_distance(states, scales))
        return Novelty(
            tuple(prediction_distances), tuple(state_distances), len(self._seen), self._hidden_layers is not None
        )

    def _steps(self) -> list[int]:
        """The steps of the first, the middle and the last nowcast."""
        every = self._setup.config.every
        last = self._setup.config.steps // every
        return [every * number for number in sorted({1, (1 + last) // 2, last})]

    def _smallest_distance(self, points: Sequence[Weights], scales: Sequence[float]) -> float:
        return min(self._nearest(weights) / scale for weights, scale in zip(points, scales, strict=True))

    def _nearest(self, weights: Weights) -> float:
        """The distance to the nearest snapshot."""
        return min((self._distance(seen, weights) for seen in self._seen), default=math.inf)

    def _distance(self, weights: Weights, reference: Weights) -> float:
        """The Euclidean distance, after weight matching if the network is sequential."""
        if self._hidden_layers is not None:
            weights = match_units(weights, reference, self._layout, self._hidden_layers)
        return float((weights - reference).norm())

    def _verified_hidden_layers(self) -> list[HiddenLayer] | None:
        """The inferred hidden layers; None if a permutation of their units changes the loss.

        This check is necessary because other networks can have the tensor shapes of a sequential network.
        """
        layers = hidden_layers(self._layout)
        weights = self._layout.read(self._setup.build()).cpu()
        before = self._setup.validation_loss(weights)
        for layer in layers or []:
            weights = permute_units(weights, self._layout, layer, torch.arange(layer.units).flip(0))
        return layers if math.isclose(self._setup.validation_loss(weights), before, rel_tol=_LOSS_TOLERANCE) else None


def _spaced_snapshots(trajectory: Trajectory, layout: Layout) -> list[Weights]:
    indices = torch.linspace(0, len(trajectory) - 1, _SNAPSHOTS_PER_TRAJECTORY).round().int().unique().tolist()
    return [trajectory.weights(index) for index in indices if trajectory.segment(index).layout == layout]
