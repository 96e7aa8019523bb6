"""Comparison of controllers on paired episodes: the same random seeds, and so the same weights and batches at first."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..core.errors import InvalidConfig
from ..growth.controllers import Controller
from .problem import Problem
from .scored_episode import Result, ScoredEpisode
from .twins import Twins

SHARES = ("0", "0.1", "0.2", "0.4", "0.6")
"""Shares of a training after which fixed schedules germinate a blueprint."""

Play = Callable[[str, int], Result]
"""Plays an episode with the controller of a name and a random seed; it may look the result up."""


@dataclass(frozen=True)
class Played:
    """The episodes of one controller.

    Attributes:
        name: what `--controller` takes: a name, a file or a registered version.
        results: one per random seed, in order.
    """

    name: str
    results: Sequence[Result]

    @property
    def mean_return(self) -> float:
        """Mean over random seeds [σ]."""
        return fmean(result.total for result in self.results)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return over random seeds [σ]; NaN for fewer than two."""
        return _standard_error([result.total for result in self.results])

    @property
    def loss_over_twin(self) -> float:
        """Loss at the end over that of the run without growth, the mean over random seeds."""
        return fmean(result.ratio for result in self.results)

    @property
    def grown(self) -> float:
        """Weights that have grown over those of the host, the mean over random seeds."""
        return fmean(result.grown for result in self.results)

    def over(self, other: "Played") -> float:
        """Paired difference of the returns, in its standard errors; NaN if there are fewer than two random seeds.

        Raises:
            InvalidConfig: the other one was played on other random seeds.
        """
        seeds, others = ([result.random_seed for result in each.results] for each in (self, other))
        if seeds != others:
            raise InvalidConfig(f"{self.name} and {other.name} were played on different random seeds; play both again")
        differences = [ours.total - theirs.total for ours, theirs in zip(self.results, other.results, strict=True)]
        error = _standard_error(differences)
        return fmean(differences) / error if error else math.copysign(math.inf, fmean(differences) or math.nan)


def play(problem: Problem, twins: Twins, controller: str | Controller, random_seed: int) -> Result:
    """Play one episode.

        from metaopt.reinforcement.comparison import play
        from metaopt.reinforcement.config import EpisodeConfig
        from metaopt.reinforcement.problem import Problem
        from metaopt.reinforcement.twins import Twins

        config = EpisodeConfig(steps=100)
        problem = Problem(config)
        play(problem, Twins(problem), "heuristic", config.evaluation_seeds(1)[0]).ratio  # below 1 if growth helped

    Args:
        controller: a name, a policy file, a registered version, or what decides itself.
    Raises:
        UnknownName, InvalidConfig: there is no such controller, or it is for other actions.
    """
    if isinstance(controller, str):
        controller = problem.start(random_seed, controller).controller
    episode = ScoredEpisode(problem, twins, random_seed)
    while not episode.is_over:
        episode.act(controller.decide(episode.observation(), episode.allowed))
    return episode.result


def played(controller: str, seeds: Sequence[int], play: Play) -> Played:
    """The episodes of a controller on all random seeds."""
    return Played(controller, [play(controller, seed) for seed in seeds])


def schedules(problem: Problem, shares: Sequence[str] = SHARES) -> list[str]:
    """All fixed schedules: each blueprint at each share of the training."""
    blueprints = [action.argument for action in problem.actions if action.kind == "germinate"]
    return [f"schedule:{blueprint}@{share}" for blueprint in blueprints for share in shares]


def best_schedule(names: Sequence[str], seeds: Sequence[int], play: Play) -> str:
    """The fixed schedule with the largest mean return.

    Args:
        seeds: random seeds that are not those of the comparison, which would otherwise favour it.
    """
    return max(names, key=lambda name: played(name, seeds, play).mean_return)


def _standard_error(numbers: Sequence[float]) -> float:
    return stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
