"""How much the training loss changes from one step to the next."""

import math


class LossChanges:
    """Running standard deviation of the change of the loss from one step to the next.

    Welford's algorithm (1962), which is stable in one pass: with the n-th change x,
    mean ← mean + (x − mean) / n and squares ← squares + (x − mean before) · (x − mean after).

    Args:
        last: the latest loss.
        count: number of changes.
        mean: mean of the changes.
        squares: sum of squared deviations from the mean.
    """

    def __init__(self, last: float | None = None, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self._last, self._count, self._mean, self._squares = last, count, mean, squares

    def add(self, loss: float) -> None:
        """Include the loss of the next step."""
        if self._last is not None:
            self._count += 1
            deviation = loss - self._last - self._mean
            self._mean += deviation / self._count
            self._squares += deviation * (loss - self._last - self._mean)
        self._last = loss

    @property
    def standard_deviation(self) -> float | None:
        """Standard deviation of the changes; None for fewer than two."""
        return math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else None

    def state(self) -> list[float | None]:
        """The arguments from which the constructor restores these statistics."""
        return [self._last, self._count, self._mean, self._squares]
