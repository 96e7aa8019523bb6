"""How much the training loss of a target typically changes from one step to the next."""

import math


class LossChanges:
    """The standard deviation of the changes of a loss, one number at a time.

    Args:
        last: the loss before.
        count: changes so far.
        mean: their mean.
        squares: sum of their squared distances from it.
    """

    def __init__(self, last: float | None = None, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self._last, self._count, self._mean, self._squares = last, count, mean, squares

    def add(self, loss: float) -> None:
        """Take in the loss of the next step (Welford 1962: stable, in one pass)."""
        if self._last is not None:
            self._count += 1
            distance = loss - self._last - self._mean
            self._mean += distance / self._count
            self._squares += distance * (loss - self._last - self._mean)
        self._last = loss

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the changes; None before the second one."""
        return math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else None

    def state(self) -> list[float | None]:
        """What the constructor takes to go on from here."""
        return [self._last, self._count, self._mean, self._squares]
