"""What happens at a nowcast: a forecast is accepted or not, the weights follow it or not, and are moved."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from .distributed import verdict_of_rank_0
from .guards.guard import Guard
from .model_state import Saved
from .movement import follow_weights
from .policy import NowcastEvent, NowcastPolicy
from .proposals import Proposal, Proposals
from .reestimation import Reestimation
from .tracked_weights import TrackedWeights


class Nowcasts:
    """Makes nowcasts.

    Args:
        tracked: the weights, their history and their averages.
        proposals: forecasts that the guard has evaluated in the network.
        guard: computes the losses of the network on held-out data.
        policy: decides what is accepted, and whether the weights follow.
        reestimation: updates the buffers that depend on the weights.
        moments: whether to `keep` or `reset` the base optimizer's state when the weights move.
        warn: called with a message when the history is not finite.
    """

    def __init__(
        self,
        tracked: TrackedWeights,
        proposals: Proposals,
        guard: Guard,
        policy: NowcastPolicy,
        reestimation: Reestimation,
        moments: Literal["keep", "reset"],
        warn: Callable[[str], None],
    ) -> None:
        self._tracked, self._proposals, self._guard, self._policy = tracked, proposals, guard, policy
        self._reestimation, self._moments, self._warn = reestimation, moments, warn

    def make(self, step: int, horizons: Sequence[int] = ()) -> NowcastEvent:
        """Make a nowcast: accept the best forecast or not, and move the weights or not.

        Args:
            step: number of steps so far [steps].
            horizons: the horizons; by default those of the policy [steps].
        Raises:
            LayoutMismatch: the trainable weights of the network are no longer the same tensors.
        """
        tracked, model_state = self._tracked, self._tracked.model_state
        model_state.check_unchanged()
        tracked.offset.set(None, step)
        if not verdict_of_rank_0(tracked.history.is_finite(), tracked.device):
            tracked.forget()
            self._warn("the history of weights is not finite and is cleared")
            return NowcastEvent(step, None, None, accepted=False)
        with model_state.restored_on_error() as saved:
            before = self._proposals.losses_before(saved)
            diverged = before is not None and not bool(before.isfinite().all())
            best = None if diverged else self._proposals.best(step, saved, horizons)
            accepted = best is not None and best.accepted(before)
            change = self._change(best) if best is not None and accepted else None
            followed = accepted and self._should_follow(change, saved)
            if best is not None and followed:
                self._move_to(best, change, saved)
            else:
                model_state.restore(saved)
                tracked.offset.set(change, step)
        after, horizon = (None, None) if best is None else (_mean(best.losses), best.horizon)
        return NowcastEvent(step, _mean(before), after, accepted, horizon, followed, self._guard.calls)

    def _change(self, best: Proposal) -> Tensor | None:
        """The predicted change of the running average: forecast − average. May overwrite `best.weights`.

        Returns: None if the weights themselves are predicted, and on all ranks except rank 0.
        """
        if self._tracked.averages.predicted is None or (forecast := self._proposals.weights_of(best)) is None:
            return None
        return forecast.sub_(self._tracked.history.snapshots.rows[-1].to(forecast.device))

    def _should_follow(self, change: Tensor | None, saved: Saved) -> bool:
        """Whether an accepted forecast moves the weights.

        Always True without a guard, or if the weights themselves are predicted. Otherwise two conditions must hold: the
        last two displacements of the average are aligned (`NowcastPolicy.goes_straight`), and the change does not
        increase the guard losses of the short-term average by more than one standard error. The short-term average is
        close to the weights and has less noise.
        """
        tracked, short = self._tracked, self._tracked.averages.short
        if short is None:
            return True
        length, decay = tracked.forecaster.history, tracked.forecaster.averaging
        aligned = bool(self._policy.goes_straight(tracked.history.snapshots, length, decay))
        if not verdict_of_rank_0(aligned, tracked.device):
            return False
        return self._proposals.tolerated(tracked.layout.join(short.tensors), change, saved)

    def _move_to(self, proposal: Proposal, change: Tensor | None, saved: Saved) -> None:
        """Move the weights, and add their change to all running averages and snapshots.

        The weights become the forecast. If their running average is predicted, `change` is added to them instead.
        """
        model_state = self._tracked.model_state
        if self._tracked.averages.predicted is None:
            model_state.write(self._proposals.weights_of(proposal))
        else:
            model_state.restore(saved)
            model_state.add(change)
        if self._reestimation.estimates:
            model_state.restore_buffers(saved.buffers)
            if not all(map(torch.equal, model_state.weights, saved.weights)):
                self._reestimation.update_statistics()
        else:
            model_state.restore_buffers(proposal.buffers)
        follow_weights(self._tracked, saved)
        if self._moments == "reset":
            for weights in model_state.weights:
                self._tracked.base.state.pop(weights, None)


def _mean(losses: Tensor | None) -> float | None:
    return None if losses is None else float(losses.mean())
