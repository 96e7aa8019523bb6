"""The time budget of nowcasts: a limit on the time that they add to a training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..core.errors import InvalidConfig
from ..core.text import shown
from .distributed import verdict_of_rank_0


class TimeBudget:
    """Decides from measured times whether a nowcast that is due takes place.

    After a nowcast of c seconds, the next one takes place when the training has gone on for c / max_overhead seconds.
    So nowcasts add at most the fraction `max_overhead` to the time of the training, apart from the last one.

    Args:
        max_overhead: time of nowcasts divided by the time of the training between them; None for no limit, and then
            nothing is measured.
        clock: gives the time [seconds].
    Raises:
        InvalidConfig: `max_overhead` is not a positive, finite number.
    """

    def __init__(self, max_overhead: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        number = isinstance(max_overhead, int | float) and not isinstance(max_overhead, bool)
        if max_overhead is not None and not (number and 0 < max_overhead < float("inf")):
            raise InvalidConfig(
                f"max_overhead is {shown(max_overhead)}; expected a fraction of the time of the training, such as "
                "0.1, or None for no limit"
            )
        self._max_overhead, self._clock = max_overhead, clock
        self._cost, self._since = 0.0, clock()

    def allows(self, device: torch.device) -> bool:
        """Whether the training has gone on for long enough since the last nowcast, on rank 0. Waits for the device."""
        if self._max_overhead is None:
            return True
        allowed = self._cost <= self._max_overhead * (self._now(device) - self._since)
        return verdict_of_rank_0(allowed, device)

    @contextmanager
    def measured(self, device: torch.device) -> Iterator[None]:
        """Measure the time of the nowcast that takes place in the block."""
        if self._max_overhead is None:
            yield
            return
        begin = self._now(device)
        try:
            yield
        finally:
            self._since = self._now(device)
            self._cost = self._since - begin

    def state_dict(self) -> dict[str, float]:
        """The time of the last nowcast, and of the training since then [seconds]; empty without a limit."""
        return {} if self._max_overhead is None else {"cost": self._cost, "elapsed": self._clock() - self._since}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned; an empty state changes nothing."""
        if state:
            self._cost, self._since = state["cost"], self._clock() - state["elapsed"]

    def _now(self, device: torch.device) -> float:
        """The time at which the operations on the device so far are finished."""
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return self._clock()
