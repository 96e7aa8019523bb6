"""Controllers: what decides when a network grows. Each sees an observation and the actions that are allowed."""

import re
from collections.abc import Sequence
from typing import Protocol

import torch

from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import suggest
from ..core.rng import generator
from ..core.text import shown
from .actions import Action
from .observation import NAMES

_SHARE, _SIGMAS, _GAIN = (
    NAMES.index(name)
    for name in ("share of the steps done", "change of the loss over sigma, 5 decisions", "gain of the seed over sigma")
)
_IN_STAGE = NAMES.index("decisions in this stage, in tens")
_PLATEAU = 0.5  # of sigma: a smaller fall of the loss in five decisions is a plateau
_LATE = 0.1  # of the training
_PATIENCE = 0.5  # tens of decisions after which a seed without a gain is removed
_SCHEDULE = re.compile(r"schedule:(?P<blueprint>\w+)@(?P<share>0|1|0?\.\d+)")


class Controller(Protocol):
    """Chooses an action at each decision. It has no state: a resumed training decides as an uninterrupted one."""

    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of an allowed action.

        Args:
            observation: the numbers that `metaopt.growth.observation.NAMES` names.
            allowed: whether the life cycle allows each action now; waiting always is.
        """


class Wait:
    """Never grows."""

    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of WAIT."""
        return 0


class RandomController:
    """Chooses among the allowed actions with equal probabilities.

    Args:
        seed: random seed.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of an allowed action, which follows from random seed and training time."""
        random = generator(self._seed, round(1e6 * observation[_SHARE]))
        return int(torch.multinomial(torch.tensor(allowed, dtype=torch.float64), 1, generator=random))


class Schedule:
    """Germinates a blueprint at fixed times, and lets it advance as soon as it may.

    Args:
        actions: all actions.
        blueprint: name of the blueprint.
        share: share of the training after which it may germinate, also in a further slot [0 to 1].
    Raises:
        UnknownName: no action germinates this blueprint.
    """

    def __init__(self, actions: Sequence[Action], blueprint: str, share: float) -> None:
        known = {action.argument: index for index, action in enumerate(actions) if action.kind == "germinate"}
        if blueprint not in known:
            raise UnknownName(f"no blueprint {shown(blueprint)} for these taps: {suggest(blueprint, known)}")
        self._germinate, self._share = known[blueprint], share
        self._advance = _index(actions, "advance")

    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of the action of this time."""
        if allowed[self._advance]:
            return self._advance
        is_due = allowed[self._germinate] and observation[_SHARE] >= self._share
        return self._germinate if is_due else 0


class Heuristic:
    """Germinates after a tenth of the training, or at a plateau before, and removes a seed without a gain for a while.

    Args:
        actions: all actions.
        blueprint: name of the blueprint.
    """

    def __init__(self, actions: Sequence[Action], blueprint: str) -> None:
        self._late, self._at_plateau = (Schedule(actions, blueprint, share) for share in (_LATE, 0.0))
        self._cull = _index(actions, "cull")

    def decide(self, observation: Sequence[float], allowed: Sequence[bool]) -> int:
        """The index of an allowed action."""
        if allowed[self._cull] and observation[_GAIN] <= 0 and observation[_IN_STAGE] > _PATIENCE:
            return self._cull
        schedule = self._at_plateau if observation[_SIGMAS] > -_PLATEAU else self._late
        return schedule.decide(observation, allowed)


def built_in(name: str, actions: Sequence[Action], largest: str, seed: int) -> Controller | None:
    """A controller without a policy; None if the name is none of theirs.

    Args:
        name: "wait", "random", "heuristic", or a schedule such as "schedule:conv@0.2".
        actions: all actions.
        largest: name of the blueprint with most weights.
        seed: random seed of "random".
    Raises:
        UnknownName: a schedule of a blueprint that does not fit the taps.
        InvalidConfig: a schedule that is not written like this.
    """
    if name.startswith("schedule:"):
        if (match := _SCHEDULE.fullmatch(name)) is None:
            raise InvalidConfig(f"the controller is {shown(name)}; expected a schedule such as schedule:conv@0.2")
        return Schedule(actions, match["blueprint"], float(match["share"]))
    if name == "heuristic":
        return Heuristic(actions, largest)
    if name == "random":
        return RandomController(seed)
    return Wait() if name == "wait" else None


def _index(actions: Sequence[Action], kind: str) -> int:
    return next(index for index, action in enumerate(actions) if action.kind == kind)
