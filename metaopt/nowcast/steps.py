"""The steps of a training: one of the base optimizer, then what nowcasts need of it, all of it timed."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from .policy import NowcastPolicy
from .reestimation import Reestimation
from .schedule import Schedule
from .state import Record
from .tracked_weights import TrackedWeights
from .training_passes import TrainingPasses
from .wrapper import is_initialisation

_RESTS = 4  # interval between whole steps from which on no hook sees the inputs of the others [steps]

log = logging.getLogger(__name__)


class Steps:
    """Takes the steps of a training.

    Within a limit on the time, only every few steps are whole ones: nothing is noted of those between them.

    Args:
        base: base optimizer.
        tracked: the weights that it moves, their history and their averages.
        passes: the last forward passes of the network.
        reestimation: notes the modes of its modules.
        policy: when snapshots are due.
        record: counts the steps, and has the time budget.
        schedule: makes the nowcasts that are due.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        tracked: TrackedWeights,
        passes: TrainingPasses,
        reestimation: Reestimation,
        policy: NowcastPolicy,
        record: Record,
        schedule: Schedule,
    ) -> None:
        self._base, self._tracked, self._passes, self._reestimation = base, tracked, passes, reestimation
        self._policy, self._record, self._schedule = policy, record, schedule

    def take(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, then make a nowcast if one is due.

        Args:
            closure: computes the loss, where the base optimizer calls it.
        Returns: the result of the base optimizer's step.
        Raises:
            LayoutMismatch: the parameter groups are no longer the trainable parameters of the model; or a nowcast is
                due, and some of these parameters were replaced, frozen or unfrozen.
        """
        base, record = self._base, self._record
        if not base.state and is_initialisation(base):
            return base.step(closure)
        every = record.budget.averaged_every
        if not (record.steps + 1) % every:
            return self._take_whole(closure)
        # As few operations as possible: steps can take less than a millisecond.
        result = base.step(closure)
        record.steps += 1
        if not (record.steps + 1) % every:
            self._passes.watch()
        return result

    def _take_whole(self, closure: Callable[[], Any] | None) -> Any:
        """Take a step with all that nowcasts need of it."""
        record, budget, tracked = self._record, self._record.budget, self._tracked
        budget.begin_step(tracked.device)
        self.follow_groups()
        # Not when the optimizer is built: weights may be loaded after that.
        if not tracked.history.times:
            self._take_due_snapshot()
        budget.begin_base()
        result = self._base.step(closure)
        budget.end_base()
        record.steps += 1
        if self._passes.note():
            self._reestimation.note()
        tracked.averages.update(tracked.model_state.weights, budget.averaged_every)
        if not record.steps % self._policy.stride:
            self._take_due_snapshot()
            self._schedule.make_due()
            budget.thin_averages(self._policy.stride, tracked.device)
        if budget.averaged_every >= _RESTS:
            self._passes.rest()
        budget.end_step(record.steps)
        return result

    def follow_groups(self) -> None:
        """Begin a new history if the base optimizer moves other parameters than before, after `add_param_group`.

        Raises:
            LayoutMismatch: these are not the trainable parameters of the network.
        """
        if self._tracked.is_outdated:
            self._tracked.start()
            self._reestimation.start()
            size = f"{self._tracked.layout.size:,}"
            log.info("the parameter groups changed; the history starts again, of %s weights", size)

    def _take_due_snapshot(self) -> None:
        if self._policy.snapshot_due(self._record.steps) and not self._record.budget.off:
            self._tracked.take_snapshot(self._record.steps)
