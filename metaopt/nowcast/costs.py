"""What nowcasts cost: the seconds of their parts, and of the training between them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch

Part = Literal["forecast", "guard", "reestimation"]


class NowcastCost(NamedTuple):
    """The time of one nowcast.

    Attributes:
        step: number of steps before the nowcast [steps].
        forecast: forecasts of the weights [seconds].
        guard: calls of the guard [seconds].
        reestimation: estimates of running statistics [seconds].
        total: the whole nowcast, with the copies of weights and buffers [seconds].
        share: how much of the horizons and of the guard's examples it used, from 0 to 1.
    """

    step: int
    forecast: float
    guard: float
    reestimation: float
    total: float
    share: float = 1.0


class Stopwatch:
    """Measures the parts of nowcasts.

    Args:
        clock: gives the time [seconds].
    Attributes:
        device: the device whose operations are waited for.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = torch.device("cpu")
        self._clock = clock
        self._parts: dict[str, float] = {}

    def now(self) -> float:
        """The time at which the operations on the device so far are finished [seconds]."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return self._clock()

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Add the time of the block to a part of the nowcast."""
        begin = self.now()
        try:
            yield
        finally:
            self._parts[name] = self._parts.get(name, 0.0) + self.now() - begin

    def start(self) -> float:
        """Begin a nowcast; gives the time [seconds]."""
        self._parts = {}
        return self.now()

    def cost(self, step: int, begin: float, share: float) -> NowcastCost:
        """The time of the nowcast that began at a time.

        Args:
            step: number of steps before it [steps].
            begin: what `start` returned [seconds].
            share: how much of the horizons and of the guard's examples it used.
        """
        forecast, guard, reestimation = (self._parts.get(name, 0.0) for name in ("forecast", "guard", "reestimation"))
        return NowcastCost(step, forecast, guard, reestimation, self.now() - begin, share)
