"""An episode with the reward of each decision, for the environment and for comparisons of controllers."""

from typing import NamedTuple

from ..core.errors import InvalidConfig
from .episode import Episode
from .problem import Problem
from .rewards import Moment
from .twins import Twins


class Result(NamedTuple):
    """What came out of an episode.

    Attributes:
        random_seed: that of the training.
        total: the sum of the rewards, the return of the episode [σ].
        loss: loss at the end.
        twin_loss: loss of the static twin at the end [same unit].
        grown: weights that have grown over those of the host.
    """

    random_seed: int
    total: float
    loss: float
    twin_loss: float
    grown: float

    @property
    def ratio(self) -> float:
        """Loss over that of the static twin; below 1 if growth helped."""
        return self.loss / self.twin_loss


class ScoredEpisode:
    """An episode beside its static twin.

    Args:
        problem: what is trained.
        twins: losses of the twins.
        random_seed: random seed of the training.
    Raises:
        Diverged: the twin diverges.
    """

    def __init__(self, problem: Problem, twins: Twins, random_seed: int) -> None:
        self._random_seed = random_seed
        self._twin_losses = twins.losses(random_seed)
        self._reward = problem.reward(twins.sigma)
        self._episode = Episode(problem, random_seed)
        self._moment, self._total = self._now(), 0.0

    @property
    def is_over(self) -> bool:
        """Whether the training has ended."""
        return self._episode.is_over

    @property
    def allowed(self) -> list[bool]:
        """Which actions the life cycle allows now."""
        return self._episode.allowed

    def observation(self) -> list[float]:
        """What a controller sees now."""
        return self._episode.observation()

    def act(self, action: int) -> float:
        """Perform an action and train up to the next decision; returns the reward.

        Raises:
            InvalidConfig: the life cycle does not allow the action now, or the episode is over.
        """
        if self.is_over:
            raise InvalidConfig("the episode is over; begin another one")
        self._episode.act(action)
        before, self._moment = self._moment, self._now()
        reward = self._reward(before, self._moment, is_last=self.is_over)
        self._total += reward
        return reward

    @property
    def result(self) -> Result:
        """What came out so far."""
        moment = self._moment
        return Result(self._random_seed, self._total, moment.loss, moment.twin_loss, moment.grown)

    def _now(self) -> Moment:
        losses = self._episode.losses
        return Moment(losses[-1], self._twin_losses[len(losses) - 1], self._episode.grown, self._episode.entered())
