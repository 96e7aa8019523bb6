"""Comparison of controllers on paired episodes: the same random seeds, and so the same weights and batches at first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..core.errors import InvalidConfig
from ..core.paired_test import PromotionDecision, decided_by
from ..core.progress import progress
from ..core.text import counted
from ..growth.controllers import Controller
from ..growth.policy import Policy
from .demonstration import demonstrate
from .problem import Problem
from .scored_episode import Result
from .twins import Twins

SHARES = ("0", "0.1", "0.2", "0.4", "0.6")
"""Shares of a training after which fixed schedules germinate a blueprint."""

CHAMPION = "champion"
"""Name of the present champion in a comparison."""

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

    @property
    def figures(self) -> dict[str, float]:
        """All figures by name."""
        return {
            "return": self.mean_return,
            "standard_error": self.standard_error,
            "loss_over_twin": self.loss_over_twin,
            "grown": self.grown,
        }

    def gains_over(self, other: "Played") -> list[float]:
        """Paired differences of the returns, one per random seed [σ].

        Raises:
            InvalidConfig: the other one was played on other random seeds.
        """
        seeds, others = ([result.random_seed for result in each.results] for each in (self, other))
        if seeds != others:
            raise InvalidConfig(f"{self.name} and {other.name} were played on different random seeds; play both again")
        return [ours.total - theirs.total for ours, theirs in zip(self.results, other.results, strict=True)]

    def over(self, other: "Played") -> float:
        """Mean paired difference of the returns, in its standard errors; 0 for equal returns, NaN for one random seed.

        Raises:
            InvalidConfig: the other one was played on other random seeds.
        """
        gains = self.gains_over(other)
        error = _standard_error(gains)
        if not any(gains):
            return 0.0 if len(gains) > 1 else math.nan
        return fmean(gains) / error if error else math.copysign(math.inf, fmean(gains))


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
    return demonstrate(problem, twins, controller, random_seed).result


def played(controller: str, seeds: Sequence[int], play: Play) -> Played:
    """The episodes of a controller on all random seeds."""
    return Played(controller, [play(controller, seed) for seed in seeds])


def resolved(problem: Problem, controller: str) -> str | Controller:
    """A policy, which is read once; or the name of a controller, which may depend on the random seed.

    Args:
        controller: a name, a policy file, or a registered version.
    Raises:
        UnknownName, InvalidConfig, FileFormatError, TrackingError: there is none, or it is for other actions.
    """
    found = problem.start(0, controller).controller
    return found if isinstance(found, Policy) else controller


def compare(
    problem: Problem, twins: Twins, controllers: Mapping[str, str | Controller], seeds: Sequence[int]
) -> list[Played]:
    """Play each controller on the same random seeds, and show the progress.

        from metaopt.reinforcement.comparison import compare
        from metaopt.reinforcement.config import EpisodeConfig
        from metaopt.reinforcement.problem import Problem
        from metaopt.reinforcement.twins import Twins

        config = EpisodeConfig(steps=40)
        problem = Problem(config)
        names = ("wait", "heuristic")
        compare(problem, Twins(problem), {name: name for name in names}, config.evaluation_seeds(2))[1].mean_return

    Args:
        controllers: as `play` takes them, by their names in the results.
        seeds: random seeds on which nothing was trained or chosen.
    """
    title = f"comparing {counted(len(controllers), 'controller')} for {problem.config.title}"
    with progress(len(controllers) * len(seeds), title, "episode") as bar:

        def play_one(name: str, seed: int) -> Result:
            result = play(problem, twins, controllers[name], seed)
            bar.update()
            return result

        return [played(name, seeds, play_one) for name in controllers]


def compare_with_champion(found: Sequence[Played]) -> PromotionDecision:
    """Whether the first policy has larger returns than the one of the name `champion`, paired by random seed.

    A one-sided paired t-test decides.
    """
    champion = next(each for each in found if each.name == CHAMPION)
    gains = found[0].gains_over(champion)
    return decided_by(gains, f"its return minus the champion's: {fmean(gains):+.3g} σ", equal=0.0)


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
