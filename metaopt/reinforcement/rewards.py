"""Rewards of a controller: what a decision was worth, from the losses before and after it. All are in units of σ."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from ..growth.stages import Stage

_CLIP = 5.0  # of a change of the loss [σ]
_REGRESSION = 0.5  # weight of a rise of the loss
_TERMINAL = 1.0  # of an episode that ends at the target loss
_LEAST_SIGMA = 1e-8

STAGE_BONUS: Mapping[Stage, float] = {
    Stage.BLENDING: 0.1,
    Stage.SHADOWING: 0.1,
    Stage.PROBATIONARY: 0.1,
    Stage.FOSSILIZED: 0.5,
}
"""What `SpecReward` pays when a growth seed enters a stage; nothing for others."""


class Moment(NamedTuple):
    """What rewards are computed from, at one decision.

    Attributes:
        loss: loss of the network.
        twin_loss: loss of the static twin at the same step: same random seed and batches, and no growth.
        grown: weights that have grown over those of the host, ΔP / P.
        entered: stages that growth seeds entered since the decision before.
    """

    loss: float
    twin_loss: float
    grown: float = 0.0
    entered: Sequence[Stage] = ()


class Reward(Protocol):
    """The reward of one decision."""

    def __call__(self, before: Moment, after: Moment, *, is_last: bool) -> float:
        """The reward of the decision between two moments.

        Args:
            is_last: whether the episode ends with it.
        """


@dataclass(frozen=True)
class TwinReward:
    """Change of the advantage over the static twin, minus a rent for the weights that have grown.

    The advantage is (loss of the twin − loss) / σ. It is symmetric: a rise costs what an equal fall pays. So the
    rewards of an episode telescope to the advantage at its end, whatever lies between. The rent of a decision is
    rent · ln(1 + ΔP / P).

        from metaopt.reinforcement.rewards import Moment, TwinReward, total

        reward = TwinReward(sigma=0.1, rent=0.0)
        total(reward, [Moment(2.0, 2.0), Moment(1.9, 1.8), Moment(1.2, 1.5)])  # (1.5 - 1.2) / 0.1 = 3.0

    Args:
        sigma: typical change of the loss from one decision to the next.
        rent: cost of a decision with e − 1 times as many grown weights as the host has [σ].
    """

    sigma: float
    rent: float

    def __call__(self, before: Moment, after: Moment, *, is_last: bool) -> float:
        """The reward of the decision between two moments."""
        change = (after.twin_loss - after.loss) - (before.twin_loss - before.loss)
        return change / max(self.sigma, _LEAST_SIGMA) - self.rent * math.log1p(after.grown)


@dataclass(frozen=True)
class SpecReward:
    """Fall of the loss, with bonuses for stages and for the end, as the specification has it.

    The change of the loss over σ is clipped to ±5, and a rise costs half of what an equal fall pays. A path that rises
    by R and falls by D + R in all is therefore paid (D + R / 2) / σ, and one that only falls by D is paid D / σ: it
    pays to let the loss oscillate. It is here to be compared with.

    Args:
        sigma: typical change of the loss from one decision to the next.
        baseline_loss: loss of the best constant prediction.
        target_loss: loss at which a training counts as converged; the bonus at the end is the share of the way from
            `baseline_loss` to it [0 to 1].
    """

    sigma: float
    baseline_loss: float
    target_loss: float

    def __call__(self, before: Moment, after: Moment, *, is_last: bool) -> float:
        """The reward of the decision between two moments."""
        fall = (before.loss - after.loss) / max(self.sigma, _LEAST_SIGMA)
        fall = max(-_CLIP, min(_CLIP, fall))
        bonus = sum(STAGE_BONUS.get(stage, 0.0) for stage in after.entered)
        return (fall if fall > 0 else _REGRESSION * fall) + bonus + (self._terminal(after.loss) if is_last else 0.0)

    def _terminal(self, loss: float) -> float:
        share = (self.baseline_loss - loss) / (self.baseline_loss - self.target_loss)
        return _TERMINAL * max(0.0, min(1.0, share))


REWARDS = ("twin", "spec")
"""Names of the rewards."""


def total(reward: Reward, moments: Iterable[Moment]) -> float:
    """The sum of the rewards of an episode: its return.

    Args:
        moments: those of all decisions, the start first and the end last.
    """
    pairs = list(pairwise(moments))
    return sum(reward(*pair, is_last=index == len(pairs)) for index, pair in enumerate(pairs, start=1))
