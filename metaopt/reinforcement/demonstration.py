"""Episodes with their decisions: what a policy is fitted to."""

from collections.abc import Sequence
from typing import NamedTuple

from ..growth.controllers import Controller
from .problem import Problem
from .scored_episode import Result, ScoredEpisode
from .twins import Twins


class Decision(NamedTuple):
    """One decision of a controller.

    Attributes:
        observation: what it saw.
        allowed: whether the life cycle allowed each action.
        action: index of the action.
        reward: what followed [σ].
    """

    observation: list[float]
    allowed: list[bool]
    action: int
    reward: float

    @property
    def is_choice(self) -> bool:
        """Whether more than one action was allowed."""
        return sum(self.allowed) > 1


class Demonstration(NamedTuple):
    """An episode of a controller.

    Attributes:
        decisions: all of them, in order.
        result: what came out.
    """

    decisions: Sequence[Decision]
    result: Result

    def returns(self, discount: float) -> list[float]:
        """The discounted sum of the rewards from each decision on [σ].

        Args:
            discount: weight of a reward that comes one decision later.
        """
        later, found = 0.0, list[float]()
        for decision in reversed(self.decisions):
            later = decision.reward + discount * later
            found.append(later)
        return found[::-1]

    def agrees(self, controller: Controller) -> bool:
        """Whether a controller would decide the same each time; its episode would then be this one."""
        return all(
            controller.decide(decision.observation, decision.allowed) == decision.action for decision in self.decisions
        )


def demonstrate(problem: Problem, twins: Twins, controller: str | Controller, random_seed: int) -> Demonstration:
    """Play one episode, and keep its decisions.

    Args:
        controller: a name, a policy file, a registered version, or what decides itself.
        random_seed: that of the training.
    Raises:
        UnknownName, InvalidConfig: there is no such controller, or it is for other actions.
    """
    if isinstance(controller, str):
        controller = problem.start(random_seed, controller).controller
    episode, decisions = ScoredEpisode(problem, twins, random_seed), list[Decision]()
    while not episode.is_over:
        observation, allowed = episode.observation(), episode.allowed
        action = controller.decide(observation, allowed)
        decisions.append(Decision(observation, allowed, action, episode.act(action)))
    return Demonstration(decisions, episode.result)
