"""The best policy so far: the one with the largest return on random seeds that it was not trained on."""

from collections.abc import Sequence
from statistics import fmean

from ..growth.policy import Policy
from .demonstration import Demonstration, demonstrate
from .problem import Problem
from .scored_episode import Result
from .twins import Twins


class Selection:
    """Keeps the policy with the largest mean return on held-out random seeds.

    A policy that would decide as in an episode that was played is not played again: its episode would be the same.

    Args:
        problem: what is trained.
        twins: losses of runs without growth.
        seeds: random seeds that no policy is trained on.
    Attributes:
        best: the best policy so far.
        best_return: its mean return [σ].
        best_rollout: rollouts after which it was found [count].
    """

    def __init__(self, problem: Problem, twins: Twins, seeds: Sequence[int]) -> None:
        self._problem, self._twins = problem, twins
        self._played: dict[int, list[Demonstration]] = {seed: [] for seed in seeds}
        self.best: Policy | None = None
        self.best_return, self.best_rollout = 0.0, 0

    def consider(self, policy: Policy, rollout: int) -> float:
        """Keep a policy if it is better than all before; returns its mean return [σ]."""
        found = fmean(self._result(policy, seed).total for seed in self._played)
        if self.best is None or found > self.best_return:
            self.best, self.best_return, self.best_rollout = policy, found, rollout
        return found

    def _result(self, policy: Policy, seed: int) -> Result:
        for played in self._played[seed]:
            if played.agrees(policy):
                return played.result
        self._played[seed].append(demonstrate(self._problem, self._twins, policy, seed))
        return self._played[seed][-1].result
