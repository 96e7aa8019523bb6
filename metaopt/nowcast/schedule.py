"""The nowcasts that are due: which take place and how large they are, what they cost, and when they stop."""

import logging
from collections.abc import Sequence

from .costs import Stopwatch
from .distributed import verdict_of_rank_0
from .guards.guard import Guard
from .metrics import MetricTargets
from .nowcasts import Nowcasts
from .payoff import why_it_does_not_pay
from .policy import NowcastPolicy
from .proposals import some_horizons
from .state import Record
from .tracked_weights import TrackedWeights

log = logging.getLogger(__name__)


class Schedule:
    """Makes the nowcasts that are due as far as the time budget allows, and records them.

    Args:
        nowcasts: makes them.
        tracked: the weights, of which snapshots and averages are dropped when nowcasts stop.
        guard: computes the losses of the network on held-out data.
        policy: when they are due, and at which horizons.
        record: receives them, and has the time budget.
        stopwatch: measures them.
        metrics: where they are logged.
    """

    def __init__(
        self,
        nowcasts: Nowcasts,
        tracked: TrackedWeights,
        guard: Guard,
        policy: NowcastPolicy,
        record: Record,
        stopwatch: Stopwatch,
        metrics: MetricTargets,
    ) -> None:
        self._nowcasts, self._tracked, self._guard, self._policy = nowcasts, tracked, guard, policy
        self._record, self._stopwatch, self._metrics = record, stopwatch, metrics

    def make_due(self) -> None:
        """Make the nowcast that is due after this step, if there is one and time for it; stop if they do not pay."""
        record, budget = self._record, self._record.budget
        if not self._policy.nowcast_due(record.steps) or budget.off:
            return
        smallest = self._guard.smallest_share / len(self._policy.all_horizons) if self._guard else 1.0
        if (share := budget.plan(smallest, self._tracked.layout.size, self._tracked.device)) is not None:
            proposed = self._policy.proposed(record.steps)
            horizons = () if share == 1 or not self._guard else some_horizons(proposed, share, record.events)
            self.make(horizons, share)
            self._metrics.log(record.events[-1], record.costs[-1], budget)
            self._stop_if_it_does_not_pay()

    def make(self, horizons: Sequence[int] = (), share: float = 1.0) -> None:
        """Make a nowcast now.

        Args:
            horizons: the horizons; by default those of the policy [steps].
            share: how many of its examples the guard uses, between 0 and 1.
        """
        record = self._record
        with record.budget.nowcast():
            begin = self._stopwatch.start()
            self._guard.start(record.steps, share)
            try:
                record.events.append(self._nowcasts.make(record.steps, horizons))
            finally:
                self._guard.finish()
                cost = self._stopwatch.cost(record.steps, begin, share)
                record.budget.add_nowcast(cost)
        record.costs.append(cost)

    def _stop_if_it_does_not_pay(self) -> None:
        record, budget = self._record, self._record.budget
        problem = why_it_does_not_pay(record.events, record.costs, budget.seconds_per_step)
        if not budget.limited or not verdict_of_rank_0(problem is not None, self._tracked.device):
            return
        budget.off = problem or "rank 0 decided so"
        log.warning(
            "nowcasts are off from step %d on: %s. The base optimizer goes on alone. max_overhead=None keeps them on",
            record.steps,
            budget.off,
        )
        self._tracked.stop()
