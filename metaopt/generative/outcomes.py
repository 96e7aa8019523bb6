"""What a history says about forecasts: what was known when each could be made, and what it should have been."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..weights.device_tables import DeviceTables
from ..weights.layout import Layout
from ..weights.scales import tensor_grams
from ..weights.snapshots import Snapshots
from ..weights.tokens import POSITION_FEATURES, token_grid
from .extrapolation import slopes_coefficients

_TINY = 1e-24  # energy below which a tensor does not move
_FLOOR = 1e-6  # of relative energies
_RIDGE = 0.01  # relative to the energy of all directions
_LARGEST_CORRECTION = 4.0


class Origins(NamedTuple):
    """The snapshots from which forecasts start, and the directions in which the weights had moved until then.

    Direction k of an origin W_i is h / (h + a) · D_k, with the horizon h and the change D_k = W_i − W_{i−n} over the
    last n snapshots and a steps, for the k-th of some ages n.

    Attributes:
        horizon: time from the origin to the forecast [steps].
        start: time of the origin [steps].
        spans: time a that a direction covers; 0 where an older snapshot is missing [steps].
        gram: inner products of the directions, divided by `energy`.
        energy: sum of the mean squares of the directions.
    """

    horizon: Float[Tensor, "batch origins"]
    start: Float[Tensor, "batch origins"]
    spans: Float[Tensor, "batch origins directions"]
    gram: Float[Tensor, "batch origins tensors directions directions"]
    energy: Float[Tensor, "batch origins tensors"]

    @property
    def known(self) -> Bool[Tensor, "batch origins"]:
        """Whether an origin has a direction, and a forecast would have a horizon."""
        return self.damping.any(-1)

    @property
    def damping(self) -> Float[Tensor, "batch origins directions"]:
        """h / (h + a) of each direction; 0 for a missing one."""
        return damping(self.horizon, self.spans)

    @property
    def slopes(self) -> Float[Tensor, "batch origins directions"]:
        """The coefficients of the directions in the forecast of `Slopes`."""
        times = torch.cat([-self.spans, torch.zeros_like(self.horizon).unsqueeze(-1)], -1)
        coefficients = slopes_coefficients(times.flatten(0, 1), self.horizon.flatten()).view_as(self.spans)
        return coefficients / self.damping.clamp(min=_FLOOR)

    def features(self, layout: Layout) -> Float[Tensor, "batch origins tensors features"]:
        """What is known of each tensor: cosines of its directions, their relative speeds, times, and its place."""
        squares = self.gram.diagonal(dim1=-2, dim2=-1) + _FLOOR
        norms = squares.rsqrt()
        count = squares.shape[-1]
        first, second = torch.triu_indices(count, count, offset=1, device=squares.device)
        cosines = (self.gram * norms.unsqueeze(-1) * norms.unsqueeze(-2))[..., first, second]
        present = (self.spans > 0).to(squares.dtype)
        speeds = squares / (self.damping * self.spans).clamp(min=1).square().unsqueeze(-2)
        relative = present.unsqueeze(-2) * 0.25 * (speeds / speeds.sum(-1, keepdim=True)).log()
        steps = torch.cat([self.spans, self.horizon.unsqueeze(-1), self.start.unsqueeze(-1)], -1)
        times = torch.cat([present, self.damping, self.slopes, 0.25 * torch.log1p(steps)], -1)
        places = _places(layout, squares.device).to(squares.dtype)
        shape = squares.shape[:-1]
        shared = times.unsqueeze(-2).expand(*shape, -1), places.expand(*shape, -1)
        # A tensor that is not finite must not change what is known of the others.
        return torch.cat([cosines, relative, *shared], -1).nan_to_num(0.0, 0.0, 0.0)


def feature_count(directions: int) -> int:
    """Number of features of a tensor at an origin, for a number of directions."""
    return directions * (directions - 1) // 2 + 5 * directions + 2 + POSITION_FEATURES


def damping(
    horizon: Float[Tensor, "batch origins"], spans: Float[Tensor, "batch origins directions"]
) -> Float[Tensor, "batch origins directions"]:
    """h / (h + a), or 0 where a is 0."""
    horizon = horizon.unsqueeze(-1)
    return (spans > 0) * horizon / (horizon + spans).clamp(min=1)


class Outcomes:
    """The forecasts that a history allows to make, and those that it allows to judge.

    All of it follows from the inner products of the snapshots.

    Args:
        snapshots: a history, [batch, weights] each, oldest first.
        times: their training times, not decreasing; missing snapshots are as in `GenerativeOptimizer` [steps].
        ages: the directions, each as a number of snapshots.
    """

    def __init__(
        self, snapshots: Snapshots, times: Float[Tensor, "batch snapshots"], layout: Layout, ages: Sequence[int]
    ) -> None:
        self._times, self._ages, self._count = times, tuple(ages), len(snapshots)
        self._grams = tensor_grams(layout, snapshots)  # [batch, tensors, snapshots, snapshots]

    def present(self, t_end: Float[Tensor, "batch horizons"]) -> Origins:
        """The last snapshot as the origin of forecasts for some times."""
        return self._origins(self._table([self._count - 1] * t_end.shape[1]), t_end)

    def past(self, targets: Sequence[int]) -> tuple[Origins, Float[Tensor, "batch origins tensors directions"]]:
        """The origins of forecasts whose outcome is known, and the inner products of directions and outcome.

        The origins of a target W_j are the snapshots that are as many before it as one of the ages, the oldest first.
        The inner products with the outcome W_j − W_i are divided by the energy of the origin.

        Args:
            targets: indices of snapshots.
        """
        pairs = [(target - age, target) for target in targets for age in self._ages if target >= age]
        starts, ends = (self._table([pair[side] for pair in pairs]) for side in (0, 1))
        device = self._times.device
        origins = self._origins(starts, self._times.index_select(1, ends.sources(device)))
        outcome = ends.units(device) - starts.units(device)
        along = torch.einsum("okn,btnm,om->botk", starts.directions(device), self._grams, outcome)
        return origins, along * origins.damping.unsqueeze(2) / origins.energy.clamp(min=_TINY).unsqueeze(-1)

    def _origins(self, table: "_Table", t_end: Tensor) -> Origins:
        device = self._times.device
        start = self._times.index_select(1, table.sources(device))
        before = self._times.index_select(1, table.before(device).flatten()).unflatten(1, (-1, len(self._ages)))
        horizon, spans = (t_end - start).clamp(min=0), (start.unsqueeze(-1) - before).clamp(min=0)
        directions, damped = table.directions(device), damping(horizon, spans).unsqueeze(2)
        gram = torch.einsum("okn,btnm,olm->botkl", directions, self._grams, directions)
        gram = gram * damped.unsqueeze(-1) * damped.unsqueeze(-2)
        energy = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        return Origins(horizon, start, spans, gram / energy.clamp(min=_TINY)[..., None, None], energy)

    def _table(self, sources: Sequence[int]) -> "_Table":
        return _table(self._count, tuple(sources), self._ages)


def needed_corrections(
    origins: Origins,
    along: Float[Tensor, "batch origins tensors directions"],
    coefficients: Float[Tensor, "batch origins tensors directions"],
) -> Float[Tensor, "batch origins tensors directions"]:
    """What had to be added to coefficients of the directions for the best forecast of a known outcome.

    v = argmin ‖Σ_k (c_k + v_k) D_k − (W_j − W_i)‖² + ridge · ‖v‖², scaled down to a norm of at most 4.
    """
    missing = along - (origins.gram @ coefficients.unsqueeze(-1)).squeeze(-1)
    ridge = _RIDGE * torch.eye(missing.shape[-1], dtype=missing.dtype, device=missing.device)
    values = torch.linalg.solve_ex(origins.gram + ridge, missing.unsqueeze(-1))[0].squeeze(-1)
    return values * (_LARGEST_CORRECTION / values.norm(dim=-1, keepdim=True).clamp(min=_LARGEST_CORRECTION))


class _Table:
    """The snapshots that origins and directions consist of, on each device where they are used."""

    def __init__(self, count: int, sources: Sequence[int], ages: Sequence[int]) -> None:
        self._sources = np.array(sources, dtype=np.int64)
        before = self._sources[:, None] - np.array(ages)
        self._before = np.where(before >= 0, before, self._sources[:, None])  # a span of 0: missing
        identity = np.eye(count, dtype=np.float32)
        self._units = identity[self._sources]
        self._directions = self._units[:, None] - identity[self._before]
        self._tables = DeviceTables()

    def sources(self, device: torch.device) -> Int[Tensor, " origins"]:
        """Index of each origin."""
        return self._on("_sources", device)

    def before(self, device: torch.device) -> Int[Tensor, "origins directions"]:
        """Index of the snapshot at the start of each direction."""
        return self._on("_before", device)

    def units(self, device: torch.device) -> Float[Tensor, "origins snapshots"]:
        """1 for the origin, 0 for all other snapshots."""
        return self._on("_units", device)

    def directions(self, device: torch.device) -> Float[Tensor, "origins directions snapshots"]:
        """1 for the origin, −1 for the start of the direction."""
        return self._on("_directions", device)

    def _on(self, name: str, device: torch.device) -> Tensor:
        return self._tables.get(name, device, lambda: torch.tensor(getattr(self, name), device=device))


@lru_cache(maxsize=256)
def _table(count: int, sources: tuple[int, ...], ages: tuple[int, ...]) -> _Table:
    return _Table(count, sources, ages)


def _places(layout: Layout, device: torch.device) -> Float[Tensor, "tensors features"]:
    """Position features of each tensor: those of tokens as large as the largest tensor."""
    grid = token_grid(layout, max(tensor.size for tensor in layout.tensors))
    return grid.places_in(0, grid.count, device).features
