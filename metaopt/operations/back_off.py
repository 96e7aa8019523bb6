"""How long a job waits after a crash."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class BackOff:
    """Waiting times that double with each failure.

    Attributes:
        first: after the first failure [s].
        longest: at most [s].
    """

    first: float = 5.0
    longest: float = 300.0

    def delay(self, failures: int) -> float:
        """The time to wait [s], up to a quarter shorter: jobs that failed together do not return together.

        Args:
            failures: attempts that crashed so far, from 1 [count].
        """
        longest = min(self.first * 2.0 ** min(failures - 1, 60), self.longest)
        return longest * (1 - random.random() / 4)
