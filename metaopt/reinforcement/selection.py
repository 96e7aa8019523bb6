"""The best policy so far, on random seeds that it was not trained on."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from ..growth.policy import Policy
from .demonstration import Demonstration, demonstrate
from .problem import Problem
from .scored_episode import Result
from .twins import Twins

_ONE = 1 + 1e-9  # a gain on one random seed alone is one standard error, whatever its size; rounding shall not decide


class Selection:
    """Keeps the best policy by its returns on held-out random seeds.

    Another one takes its place if the mean of its paired gains is larger than their standard error, because the best of
    many policies on few random seeds is often not the best on others. A policy that would decide as in an episode that
    was played is not played again: its episode would be the same.

    Args:
        problem: what is trained.
        twins: losses of runs without growth.
        seeds: random seeds that no policy is trained on.
    Attributes:
        best: the best policy so far.
        returns: its return on each random seed [σ].
        rollout: rollouts after which it was found [count].
    """

    def __init__(self, problem: Problem, twins: Twins, seeds: Sequence[int]) -> None:
        self._problem, self._twins = problem, twins
        self._played: dict[int, list[Demonstration]] = {seed: [] for seed in seeds}
        self.best: Policy | None = None
        self.returns: list[float] = []
        self.rollout = 0

    def consider(self, policy: Policy, rollout: int) -> float:
        """Keep a policy if it is better than the best so far; returns its mean return [σ]."""
        returns = [self._result(policy, seed).total for seed in self._played]
        if self.best is None or is_better(returns, self.returns):
            self.best, self.returns, self.rollout = policy, returns, rollout
        return fmean(returns)

    def _result(self, policy: Policy, seed: int) -> Result:
        for played in self._played[seed]:
            if played.agrees(policy):
                return played.result
        self._played[seed].append(demonstrate(self._problem, self._twins, policy, seed))
        return self._played[seed][-1].result


def is_better(returns: Sequence[float], others: Sequence[float]) -> bool:
    """Whether returns are larger than others by more than the standard error of their paired differences."""
    gains = [ours - theirs for ours, theirs in zip(returns, others, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return fmean(gains) > _ONE * error
