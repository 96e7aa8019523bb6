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

_SAMPLED = 17  # counted steps, one of which is measured on an accelerator, where measuring waits; prime, to meet all
_LONGEST_STEP = 10.0  # times the mean step: what takes longer is a pause, such as an evaluation
_MEASURED = 0.8  # of what is added; the rest is in caches of the processor and the hook on the network
_UPKEEP_SHARE = 0.5  # of the budget that running averages and all else beside nowcasts may use

# What the first nowcast is assumed to cost: a forecast by an optimizer of the package on one core, and its guard.
_FIRST_SECONDS, _FIRST_SECONDS_PER_WEIGHT, _FIRST_STEPS = 0.02, 1e-7, 5


class TimeBudget:
    """Decides from measured times whether a nowcast that is due takes place, and how large it is.

    All that a `Nowcast` adds to the base optimizer is counted: what it does at every step, such as running averages and
    snapshots, and the nowcasts. Together they may take the fraction `max_overhead` of the time of the training. What
    the training has paid for so far is the credit. A nowcast takes place if the credit covers it, with fewer horizons
    and fewer examples of the guard if it does not cover all of them. The cost is estimated from the last nowcasts. That
    of the first one is assumed, and the first two are as small as possible, because they are slower than others.

    Pauses, such as evaluations, give no credit.

    Args:
        max_overhead: time of all that is added, divided by the time of the training without it; None for no limit, and
            then nothing is decided by times.
        clock: gives the time [seconds].
    Attributes:
        max_overhead: the limit.
        training: time of the training steps so far, without what nowcasts add [seconds].
        upkeep: time of what was added to the steps so far, such as running averages and snapshots [seconds].
        nowcasts: time of the nowcasts so far [seconds].
        count: number of nowcasts so far [count].
        averaged_every: interval between steps after which running averages are updated and inputs are noted [steps].
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
        self._last: float | None = None  # when the last step ended
        self._last_step = 0
        self._begun, self._before = 0.0, 0.0  # when what is added began, and how long it took before the base optimizer
        self._waits: torch.device | None = None  # the device to wait for in a step that is measured on an accelerator
        self._is_measured, self._sampled = True, 0.0  # whether this step is, and the last measured upkeep of a step
        self._counted, self._resumed_upkeep = 0, 0.0  # counted steps in this process, and upkeep before them

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

    def plan(self, smallest: float, weights: int, device: torch.device) -> float | None:
        """The share of horizons and examples of a nowcast that is due, decided by rank 0; None for no nowcast.

        Args:
            smallest: the smallest useful share.
            weights: how many are forecast [count].
            device: device of the network, on which the process group can communicate.
        """
        if self.max_overhead is None:
            return 1.0
        planned = self._share(smallest, weights)
        share = float(broadcast_from_rank_0(torch.tensor([planned], dtype=torch.float64), device))
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
        """Leave the time of the block out of that of the training and of the upkeep, also if it raises."""
        begin = self._clock()
        try:
            yield
        finally:
            taken = self._clock() - begin
            self._begun += taken
            if self._last is not None:
                self._last += taken

    def begin_step(self, device: torch.device) -> None:
        """Begin a step that counts. What is done now, and from `end_base` to `end_step`, is added to the training.

        Args:
            device: of the network. On an accelerator only some steps are measured, because measuring waits for it.
        """
        on_accelerator = device.type != "cpu"
        self._is_measured = not on_accelerator or not self._counted % _SAMPLED
        self._waits = device if on_accelerator and self._is_measured else None
        self._begun = self._clock()

    def begin_base(self) -> None:
        """The base optimizer begins."""
        self._before = self._clock() - self._begun

    def end_base(self) -> None:
        """The base optimizer has ended."""
        self._begun = self._now()

    def end_step(self, step: int) -> None:
        """Count the steps since the last one that counted, and what was added to this one.

        Args:
            step: number of steps so far [steps].
        """
        now = self._now()
        if self._is_measured:
            self._sampled = self._before + now - self._begun
        if self._last is not None:
            steps, taken = step - self._last_step, max(now - self._last - self._sampled, 0.0)
            if self._steps:
                taken = min(taken, (_LONGEST_STEP + steps - 1) * self.training / self._steps)
            self.training += taken
            self._steps += steps
            self.upkeep += self._sampled
            self._counted += 1
        self._last, self._last_step = now, step

    def thin_averages(self, stride: int, device: torch.device) -> None:
        """Choose how often running averages are updated, so that they leave a part of the budget to nowcasts.

        Args:
            stride: a multiple of the interval [steps].
            device: the device of the network.
        """
        if self.max_overhead is None or not self._counted:
            return
        # The mean over the whole training: if other programs run, single steps and short intervals say little.
        added = (self.upkeep - self._resumed_upkeep) / self._counted
        allowed = _UPKEEP_SHARE * _MEASURED * self.max_overhead * self.seconds_per_step
        divisors = [each for each in range(1, stride + 1) if not stride % each]
        chosen = next((each for each in divisors if each * allowed >= added), stride)
        self.averaged_every = int(broadcast_from_rank_0(torch.tensor([chosen]), device))

    def state_dict(self) -> dict[str, Any]:
        """The times so far; empty without a limit."""
        return {} if self.max_overhead is None else {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the states of earlier versions change nothing."""
        if self.max_overhead is not None and all(name in state for name in _STATE):
            for name in _STATE:
                setattr(self, name, state[name])
            self._last, self._counted, self._resumed_upkeep = None, 0, self.upkeep

    def _now(self) -> float:
        """The time at which the operations on the device are finished, if this step is measured [seconds]."""
        if self._waits is not None:
            torch.accelerator.synchronize(self._waits)
        return self._clock()

    def _share(self, smallest: float, weights: int) -> float:
        fixed, variable = (self._fixed, self._variable) if self.count else (self._assumed(weights), 0.0)
        largest = smallest if self.count < 2 else 1.0
        share = min((self.credit - fixed) / max(variable, 1e-12), largest)
        return share if share >= smallest else 0.0

    def _assumed(self, weights: int) -> float:
        """What the first nowcast is assumed to cost [seconds]."""
        return _FIRST_SECONDS + _FIRST_SECONDS_PER_WEIGHT * weights + _FIRST_STEPS * self.seconds_per_step


_STATE = ("training", "upkeep", "nowcasts", "count", "averaged_every", "off", "_steps", "_fixed", "_variable")
