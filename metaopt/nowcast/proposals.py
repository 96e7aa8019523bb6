"""The proposals of a nowcast: forecasts at several horizons, each evaluated in the network by the guard."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..weights.layout import is_finite
from .buffers import SavedBuffers
from .distributed import is_rank_0, verdict_of_rank_0
from .guards.guard import Guard
from .model_state import Saved
from .policy import NowcastEvent, NowcastPolicy, accepts, rank, tolerates
from .reestimation import Reestimation
from .tracked_weights import TrackedWeights

_WEIGHTS_AT_ONCE = 2**24  # maximum size of forecasts at several horizons that are computed and kept; bounds memory

BATCHES_OF_PROPOSAL = 2
"""Batches for the running statistics of a proposal; all kept ones are used when it stays (docs/decisions/0038)."""


class Proposal(NamedTuple):
    """A forecast at one horizon, with the buffers and the guard losses of the network with the forecast weights.

    Attributes:
        horizon: time from the last snapshot to the forecast [steps].
        weights: the forecast; None on all ranks except rank 0, and for a large network [raw units].
        buffers: buffers of the network, updated for the forecast weights.
        losses: guard losses; None without a guard.
    """

    horizon: int
    weights: Float[Tensor, " weights"] | None
    buffers: SavedBuffers
    losses: Float[Tensor, " examples"] | None

    @property
    def rank(self) -> float:
        """Mean guard loss, or 0 without a guard. The proposal with the lowest rank is the best."""
        return 0.0 if self.losses is None else float(rank(self.losses))

    def accepted(self, before: Float[Tensor, " examples"] | None) -> bool:
        """Whether the policy accepts the proposal.

        Args:
            before: guard losses of the last snapshot; None without a guard.
        """
        return before is None or self.losses is None or bool(accepts(before, self.losses))


def some_horizons(proposed: Sequence[int], share: float, events: Sequence[NowcastEvent]) -> tuple[int, ...]:
    """A share of the horizons: those around the last accepted one, or around another one at each nowcast.

    Args:
        proposed: the horizons of the policy [steps].
        share: how many of them, between 0 and 1; at least one.
        events: the nowcasts so far.
    """
    count = max(math.ceil(share * len(proposed)), 1)
    last = events[-1] if events else None
    known = last is not None and last.accepted and last.horizon in proposed
    middle = proposed.index(last.horizon) if known and last and last.horizon else len(events) % len(proposed)
    begin = min(max(middle - (count - 1) // 2, 0), len(proposed) - count)
    return tuple(proposed[begin : begin + count])


class Proposals:
    """Evaluates forecasts in the network.

    Args:
        tracked: the weights, their history, and the forecasts from it.
        guard: computes the losses of the network on held-out data.
        policy: selects the horizons.
        reestimation: updates the buffers that depend on the weights; called after the weights are replaced.
        warn: called with a message when a forecast is not finite.
    """

    def __init__(
        self,
        tracked: TrackedWeights,
        guard: Guard,
        policy: NowcastPolicy,
        reestimation: Reestimation,
        warn: Callable[[str], None],
    ) -> None:
        self._tracked, self._guard, self._policy = tracked, guard, policy
        self._reestimation, self._warn = reestimation, warn

    def losses_before(self, saved: Saved) -> Float[Tensor, " examples"] | None:
        """Guard losses of the last snapshot, from which the forecasts start; None without a guard.

        Args:
            saved: weights and buffers before the nowcast.
        """
        if self._guard and self._tracked.forecaster.averaging:
            self._write(self._tracked.history.snapshots.rows[-1], saved)
        elif self._guard:
            self._reestimation.update_statistics(BATCHES_OF_PROPOSAL)  # as for the proposals
        return self._guard.losses(self._tracked.device)

    def weights_of(self, proposal: Proposal) -> Float[Tensor, " weights"] | None:
        """The forecast of a proposal, computed again for a large network; None on all ranks except rank 0 [raw units].

        So there is memory for one forecast at a time.
        """
        if proposal.weights is None and is_rank_0():
            return self._tracked.forecasts.predict([proposal.horizon])[0]
        return proposal.weights

    def best(self, step: int, saved: Saved, horizons: Sequence[int] = ()) -> Proposal | None:
        """The best proposal after a step; None if no forecast is finite.

        Args:
            horizons: the horizons; by default those of the policy [steps].
        """
        horizons = horizons or self._policy.proposed(step, guarded=bool(self._guard))
        return min(self._finite_proposals(horizons, saved), key=lambda each: each.rank, default=None)

    def tolerated(
        self, weights: Float[Tensor, " weights"], change: Float[Tensor, " weights"] | None, saved: Saved
    ) -> bool:
        """Whether adding a change to weights increases the mean guard loss by at most one standard error.

        Args:
            weights: the weights before the change; overwritten by the sum [raw units].
            change: the change; None on all ranks except rank 0 [raw units].
            saved: weights and buffers before the nowcast.
        """
        self._write(weights, saved)
        before = self._guard.losses(self._tracked.device)
        self._write(None if change is None else weights.add_(change), saved)
        after = self._guard.losses(self._tracked.device)
        return before is None or after is None or bool(tolerates(before, after))

    def _finite_proposals(self, horizons: Sequence[int], saved: Saved) -> Iterator[Proposal]:
        before = float("inf")
        for horizon, weights in self._each_forecast(horizons):
            if verdict_of_rank_0(weights is None or is_finite(weights), self._tracked.device):
                self._write(weights, saved)
                buffers = (
                    self._tracked.model_state.save_buffers()
                )  # before the guard: in training mode it can change them
                losses = self._guard.losses(self._tracked.device)
                proposal = Proposal(horizon, weights if self._are_kept else None, buffers, losses)
                yield proposal
                rank_now = proposal.rank
            else:
                self._warn("a forecast of the weights is not finite")
                rank_now = float("inf")
            if self._policy.stop_early and rank_now > before:
                return
            before, weights = rank_now, None

    @property
    def _are_kept(self) -> bool:
        """Whether the forecasts at all horizons are computed at once and kept; otherwise there is one at a time."""
        return len(self._policy.all_horizons) * self._tracked.layout.size <= _WEIGHTS_AT_ONCE

    def _each_forecast(self, horizons: Sequence[int]) -> Iterator[tuple[int, Tensor | None]]:
        """Yield each horizon with its forecast, which is None on all ranks except rank 0."""
        if not is_rank_0():
            yield from ((horizon, None) for horizon in horizons)
        elif self._are_kept:
            yield from zip(horizons, self._tracked.forecasts.predict(horizons), strict=True)
        else:
            yield from ((horizon, self._tracked.forecasts.predict([horizon])[0]) for horizon in horizons)

    def _write(self, weights: Tensor | None, saved: Saved) -> None:
        """Write weights to the network.

        The buffers are restored to their state before the nowcast, and then updated for these weights.
        """
        self._tracked.model_state.restore_buffers(saved.buffers)
        self._tracked.model_state.write(weights)
        self._reestimation.update_buffers()
        if self._guard:
            self._reestimation.update_statistics(BATCHES_OF_PROPOSAL)
