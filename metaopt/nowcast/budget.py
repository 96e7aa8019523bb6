"""The time budget of nowcasts: a limit on the time that they add to a training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..core.errors import InvalidConfig
from ..core.text import shown
from .costs import NowcastCost
from .distributed import broadcast_from_rank_0

_SAMPLED = 16  # steps, one of which is measured on an accelerator, where measuring waits for the device
_LONGEST_STEP = 10.0  # times the mean step: what takes longer is a pause, such as an evaluation
_MEASURED = 0.8  # of what is added; the rest is in caches of the processor, hooks and the checks before a step
_UPKEEP_SHARE = 0.5  # of the budget that running averages and snapshots may use


class TimeBudget:
    """Decides from measured times whether a nowcast that is due takes place, and how large it is.

    All that a `Nowcast` adds to the base optimizer is counted: running averages and snapshots at every step, and the
    nowcasts. Together they may take the fraction `max_overhead` of the time of the training. What the training has paid
    for so far is the credit. A nowcast takes place if the credit covers it, with fewer horizons and fewer examples of
    the guard if it does not cover all of them. The cost is estimated from the last nowcasts. The first two, whose cost
    is unknown, are as small as possible and take place without debt.

    Pauses, such as evaluations, give no credit.

    Args:
        max_overhead: time of all that is added, divided by the time of the training without it; None for no limit, and
            then nothing is decided by times.
        clock: gives the time [seconds].
    Attributes:
        max_overhead: the limit.
        training: time of the training steps so far, without what nowcasts add [seconds].
        upkeep: time of running averages and snapshots so far [seconds].
        nowcasts: time of the nowcasts so far [seconds].
        count: number of nowcasts so far [count].
        averaged_every: interval between updates of the running averages [steps].
        off: why there are no further nowcasts; empty while there are.
    Raises:
        InvalidConfig: `max_overhead` is not a positive, finite number.
    """

    def __init__(self, max_overhead: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        number = isinstance(max_overhead, int | float) and not isinstance(max_overhead, bool)
        if max_overhead is not None and not (number and 0 < max_overhead < float("inf")):
            raise InvalidConfig(
                f"max_overhead is {shown(max_overhead)}; expected a fraction of the time of the training, such as "
                "0.05, or None for no limit"
            )
        self.max_overhead, self._clock = max_overhead, clock
        self.training, self.upkeep, self.nowcasts, self.count = 0.0, 0.0, 0.0, 0
        self.averaged_every, self.off = 1, ""
        self._steps, self._fixed, self._variable = 0, 0.0, 0.0
        self._interval = 0.0, 0  # upkeep and steps when the interval was chosen
        self._last: float | None = None  # when the last step ended
        self._sampled: float | None = None  # the last measured upkeep of a step

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.max_overhead is not None

    @property
    def overhead(self) -> float:
        """What nowcasts have added so far, as a fraction of the time of the training."""
        return (self.upkeep + self.nowcasts) / self.training if self.training else 0.0

    @property
    def credit(self) -> float:
        """Time that nowcasts may still take [seconds]; infinite without a limit."""
        if self.max_overhead is None:
            return float("inf")
        return _MEASURED * self.max_overhead * self.training - self.upkeep - self.nowcasts

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a training step [seconds]."""
        return self.training / max(self._steps, 1)

    def plan(self, smallest: float, device: torch.device) -> float | None:
        """The share of horizons and examples of a nowcast that is due, decided by rank 0; None for no nowcast.

        Args:
            smallest: the smallest useful share.
            device: device of the network, on which the process group can communicate.
        """
        if self.max_overhead is None:
            return 1.0
        share = float(broadcast_from_rank_0(torch.tensor([self._share(smallest)], dtype=torch.float64), device))
        return share or None

    def add_nowcast(self, cost: NowcastCost) -> None:
        """Count a nowcast, and estimate from it what others cost."""
        self.nowcasts += cost.total
        self.count += 1
        scaled = cost.forecast + cost.guard
        fixed, variable = cost.total - scaled, scaled / cost.share
        weight = 1.0 if self.count <= 2 else 0.5
        self._fixed += weight * (fixed - self._fixed)
        self._variable += weight * (variable - self._variable)

    @contextmanager
    def nowcast(self) -> Iterator[None]:
        """Leave the time of the block out of that of the training, also if it raises."""
        begin = self._clock()
        try:
            yield
        finally:
            if self._last is not None:
                self._last += self._clock() - begin

    def starts_upkeep(self, step: int, device: torch.device) -> float:
        """Begin to measure what is added to a step; the time, or NaN if this step is not measured [seconds].

        Args:
            step: number of steps so far [steps].
            device: on an accelerator only some steps are measured, because measuring waits for it.
        """
        if device.type != "cpu":
            if step % _SAMPLED:
                return float("nan")
            torch.accelerator.synchronize(device)
        return self._clock()

    def end_step(self, begin: float, device: torch.device) -> None:
        """Count a step of the training, and what was added to it.

        Args:
            begin: what `starts_upkeep` returned [seconds].
            device: the device of the network.
        """
        measured = begin == begin
        if measured and device.type != "cpu":
            torch.accelerator.synchronize(device)
        now = self._clock()
        if measured:
            self._sampled = now - begin
        added = self._sampled or 0.0
        if self._last is not None:
            taken = max(now - self._last - added, 0.0)
            if self._steps:
                taken = min(taken, _LONGEST_STEP * self.seconds_per_step)
            self.training += taken
            self._steps += 1
            self.upkeep += added
        self._last = now

    def thin_averages(self, stride: int, device: torch.device) -> None:
        """Choose how often running averages are updated, so that they leave a part of the budget to nowcasts.

        Args:
            stride: a multiple of the interval [steps].
            device: the device of the network.
        """
        if self.max_overhead is None or not self._steps:
            return
        allowed = _UPKEEP_SHARE * self.max_overhead * self.seconds_per_step
        upkeep, steps = self.upkeep - self._interval[0], self._steps - self._interval[1]
        if not steps:
            return
        self._interval = self.upkeep, self._steps
        needed = upkeep / steps * self.averaged_every / max(allowed, 1e-12)
        divisors = [each for each in range(1, stride + 1) if not stride % each]
        chosen = next((each for each in divisors if each >= needed), stride)
        self.averaged_every = int(broadcast_from_rank_0(torch.tensor([chosen]), device))

    def state_dict(self) -> dict[str, Any]:
        """The times so far; empty without a limit."""
        return {} if self.max_overhead is None else {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the states of earlier versions change nothing."""
        if self.max_overhead is not None and all(name in state for name in _STATE):
            for name in _STATE:
                setattr(self, name, state[name])
            self._last, self._interval = None, (self.upkeep, self._steps)

    def _share(self, smallest: float) -> float:
        credit = self.credit
        if self.count < 2:
            return smallest if credit >= 0 else 0.0
        if credit <= self._fixed:
            return 0.0
        share = min((credit - self._fixed) / max(self._variable, 1e-12), 1.0)
        return share if share >= smallest else 0.0


_STATE = ("training", "upkeep", "nowcasts", "count", "averaged_every", "off", "_steps", "_fixed", "_variable")
