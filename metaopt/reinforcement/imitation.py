"""Imitation: a policy is fitted to the decisions of a controller before it is trained by its own returns."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import mse_loss

from ..core.errors import InvalidConfig
from ..core.progress import progress
from ..growth.policy import Policy
from .comparison import best_schedule, schedules
from .config import BEST_SCHEDULE, TrainControllerConfig
from .demonstration import Demonstration, demonstrate
from .problem import Problem
from .scored_episode import Result
from .twins import Twins

_PASSES = 300
_LR = 3e-3  # the same whatever that of PPO is, so that a small one does not end the fit early


def check_imitated(problem: Problem, name: str) -> None:
    """Check that a controller can be imitated.

    Args:
        name: what `--controller` takes, or "best schedule".
    Raises:
        UnknownName, InvalidConfig: there is none, or it is a policy.
        FileFormatError, TrackingError: it is a policy that cannot be read.
    """
    if name != BEST_SCHEDULE and isinstance(problem.start(0, name).controller, Policy):
        raise InvalidConfig(
            f"imitate is {name}, a policy; expected a controller without one, such as heuristic, schedule:conv@0.2 or "
            f"{BEST_SCHEDULE}. A training goes on from its policy with --resume-from"
        )


def imitated_controller(problem: Problem, twins: Twins, config: TrainControllerConfig) -> str:
    """The name of the controller that is imitated; the best fixed schedule is chosen on held-out random seeds."""
    if config.imitate != BEST_SCHEDULE:
        return str(config.imitate)
    names, seeds = schedules(problem), config.selection_seeds(config.selection_episodes)
    with progress(len(names) * len(seeds), f"schedules for {config.title}", "episode") as bar:

        def play_one(name: str, seed: int) -> Result:
            result = demonstrate(problem, twins, name, seed).result
            bar.update()
            return result

        return best_schedule(names, seeds, play_one)


def demonstrations(problem: Problem, twins: Twins, config: TrainControllerConfig, name: str) -> list[Demonstration]:
    """Episodes of a controller on random seeds of training."""
    seeds = config.training_seeds[: config.imitate_episodes]
    with progress(len(seeds), f"demonstrations of {name} for {config.title}", "episode") as bar:
        found = []
        for seed in seeds:
            found.append(demonstrate(problem, twins, name, seed))
            bar.update()
        return found


def fit(policy: Any, episodes: Sequence[Demonstration], discount: float) -> None:
    """Fit a policy to the decisions of episodes, and its estimate of the return to what followed.

    It minimises the cross-entropy of the decisions where more than one action was allowed, with the logits of all other
    actions masked (behavioural cloning; Pomerleau 1991, Neural Computation 3(1)), plus the squared error of the
    estimated returns of all decisions. Each gradient is that of all decisions, so nothing is drawn at random. As the
    start of a policy gradient: Rajeswaran et al. 2018, arXiv:1709.10087. Departs: demonstrations are not used later.

    Args:
        policy: an actor-critic policy of sb3-contrib.
        discount: weight of a reward that comes one decision later.
    """
    decisions = [decision for episode in episodes for decision in episode.decisions]
    observations = torch.tensor([decision.observation for decision in decisions], dtype=torch.float32)
    allowed = torch.tensor([decision.allowed for decision in decisions])
    actions = torch.tensor([decision.action for decision in decisions])
    returns = torch.tensor([value for episode in episodes for value in episode.returns(discount)], dtype=torch.float32)
    choices = torch.tensor([decision.is_choice for decision in decisions])
    optimizer = torch.optim.Adam(policy.parameters(), _LR)
    for _ in range(_PASSES):
        values, log_probabilities, _ = policy.evaluate_actions(observations, actions, allowed)
        # A decision without a choice has the log-probability 0.
        loss = -log_probabilities.sum() / choices.sum().clamp(min=1) + mse_loss(values.flatten(), returns)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def agreement(decide: Callable[[list[float], list[bool]], int], episodes: Sequence[Demonstration]) -> float:
    """Share of the decisions of episodes that a policy makes, too, where more than one action was allowed."""
    choices = [decision for episode in episodes for decision in episode.decisions if decision.is_choice]
    same = sum(decide(decision.observation, decision.allowed) == decision.action for decision in choices)
    return same / len(choices) if choices else 1.0
