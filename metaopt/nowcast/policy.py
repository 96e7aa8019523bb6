"""The nowcast policy: when to nowcast, which horizons to propose, what to accept, and when to move the weights.

A nowcast forecasts the weights at several horizons. The guard computes the losses of these proposals on held-out data.
`Nowcast`, online meta-training, its validation and the evaluation all use `NowcastPolicy`. A generative optimizer is
thus trained and used with the same rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.clock import fires
from ..core.config import Config, option
from ..core.errors import InvalidConfig
from ..core.text import shown
from ..weights.snapshots import Snapshots

MIN_COSINE = 0.7
"""Default of `NowcastPolicy.min_cosine`."""

_DEFAULT_HORIZONS = (0.5, 1.5, 4.0, 8.0)  # multiples of `every`
_WEIGHTS_AT_ONCE = 2**20  # number of weights that `_cosine` reads at a time; bounds memory
_WEIGHTS_ON_DEVICE = 2**24  # the same on an accelerator, where fewer, larger operations are faster

Losses = Float[Tensor, "*rows examples"]
"""Losses that a guard returns: one per example, or only their mean."""


class Choice(NamedTuple):
    """The index of the best proposal and whether it is accepted, for each row. A row is one training run."""

    best: Int[Tensor, "*rows"]
    accepted: Bool[Tensor, "*rows"]


@dataclass(frozen=True)
class NowcastPolicy:
    """Decides when to nowcast, which horizons to propose, what to accept, and when to move the weights.

    The policy has no state: its decisions depend only on step counts, guard losses and the history.

        from metaopt.nowcast import NowcastPolicy

        policy = NowcastPolicy(every=40, stride=20, horizons=(20, 60, 160))
        policy.proposed(step=100)  # (20,): at most half of the steps so far; the shortest is always allowed

    Attributes:
        every: interval between nowcasts, a multiple of `stride` [steps].
        stride: interval between the snapshots of the history [steps].
        horizons: candidate horizons; if empty, 0.5, 1.5, 4 and 8 times `every`, rounded to multiples of `stride`
            [steps].
        min_cosine: minimum cosine similarity of the last two displacements of the running average. Below it, a
            forecast of the average does not move the weights. −1 accepts every direction (docs/decisions/0014).
        max_share: maximum horizon as a fraction of the steps so far (docs/decisions/0013).
        stop_early: whether to leave out the horizons after the first one whose mean guard loss is higher than that of
            the horizon before it. It saves calls of the guard, and forecasts (docs/decisions/0018).
    Raises:
        InvalidConfig: a number of steps is not a positive integer, `every` is not a multiple of `stride`,
            `min_cosine` is outside [−1, 1], or `max_share` is not positive and finite.
    """

    every: int = 40
    stride: int = 20
    horizons: tuple[int, ...] = ()
    min_cosine: float = MIN_COSINE
    max_share: float = 0.5
    stop_early: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizons", tuple(self.horizons))
        steps = (("every", self.every), ("stride", self.stride), *(("a horizon", each) for each in self.horizons))
        for name, value in steps:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidConfig(f"{name} is {shown(value)}; expected a positive integer [steps]")
        if self.every % self.stride:
            raise InvalidConfig(
                f"every is {self.every}; expected a multiple of stride ({self.stride}), because each nowcast "
                f"starts from a snapshot taken at that step. Set every={self.whole_strides(self.every)}"
            )
        if not -1 <= self.min_cosine <= 1:
            raise InvalidConfig(f"min_cosine is {shown(self.min_cosine)}; expected a cosine from -1 to 1")
        if not 0 < self.max_share < float("inf"):
            raise InvalidConfig(
                f"max_share is {shown(self.max_share)}; expected a positive fraction of the steps so far"
            )

    @property
    def all_horizons(self) -> tuple[int, ...]:
        """All horizons that a nowcast with a guard may propose [steps]."""
        defaults = (self.whole_strides(factor * self.every) for factor in _DEFAULT_HORIZONS)
        return self.horizons or tuple(dict.fromkeys(defaults))

    def whole_strides(self, steps: float) -> int:
        """Round a number of steps to a multiple of the stride, at least one stride [steps]."""
        return max(round(steps / self.stride), 1) * self.stride

    def snapshot_due(self, step: int) -> bool:
        """Whether to take a snapshot after a step; also before the first one."""
        return step == 0 or fires(step, self.stride)

    def nowcast_due(self, step: int) -> bool:
        """Whether to nowcast after a step."""
        return fires(step, self.every)

    def proposed(self, step: int, *, guarded: bool = True) -> tuple[int, ...]:
        """The horizons to propose after a step [steps].

        Args:
            step: number of steps so far [steps].
            guarded: whether a guard chooses among the proposals. If not, the only horizon is the first of `horizons`,
                or `every` if `horizons` is empty.
        """
        if not guarded:
            return self.horizons[:1] or (self.every,)
        allowed = tuple(each for each in self.all_horizons if each <= self.max_share * step)
        return allowed or (min(self.all_horizons),)

    def longest(self, step: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """The upper limit of the horizon for each number of steps so far [steps].

        The limit is not necessarily one of `all_horizons`.
        """
        return (self.max_share * step).clamp(min(self.all_horizons), max(self.all_horizons))

    def choose(
        self, before: Float[Tensor, "*rows examples"], after: Float[Tensor, "proposals *rows examples"]
    ) -> Choice:
        """Choose the proposal with the lowest mean guard loss, for each training run (row) of a batch.

        Args:
            before: guard losses of the last snapshot, from which the forecasts start.
            after: guard losses of each proposal on the same examples.
        """
        ranks = rank(after)
        if self.stop_early:
            rises = (ranks[1:] > ranks[:-1]).cumsum(0) > 0
            ranks = torch.cat([ranks[:1], ranks[1:].masked_fill(rises, torch.inf)])
        best = ranks.argmin(0)
        index = best.expand(1, *best.shape).unsqueeze(-1).expand(1, *after.shape[1:])
        return Choice(best, accepts(before, after.gather(0, index)[0]))

    def goes_straight(
        self, history: Float[Tensor, "*rows snapshots weights"] | Snapshots, length: int, averaging: float
    ) -> Bool[Tensor, "*rows"]:
        """Whether the cosine similarity of the last two displacements of a running average is at least `min_cosine`.

        If the cosine is low, the displacements of the average are mostly gradient noise. Moving the weights to a
        forecast then has no lasting effect: the gain is lost within about a hundred steps.

        Each displacement covers the time constant of the average, 1 / (1 − averaging) steps, rounded down to a multiple
        of `stride`. It is at least one stride, and is shorter than the time constant if the history is too short.

        Args:
            history: the snapshots so far, `stride` steps apart, oldest first [raw units].
            length: number of snapshots of a full history [count]. The cosine requires three snapshots. While there are
                fewer, the result is False; if `length` is less than three, the result is True.
            averaging: decay of the running average in the snapshots.
        """
        snapshots = history if isinstance(history, Snapshots) else Snapshots.of(history)
        count = len(snapshots)
        if count < 3:
            return torch.full(snapshots.rows[-1].shape[:-1], length < 3, device=snapshots.device)
        strides = max(min(round(1 / (1 - averaging)) // self.stride, (count - 1) // 2), 1)  # per displacement
        return _cosine(snapshots, [count - 1 - 2 * strides, count - 1 - strides, count - 1]) >= self.min_cosine


class PolicyConfig(Config):
    """Base class of configurations that contain the parameters of a nowcast policy."""

    renamed: ClassVar[Mapping[str, str]] = {"straight": "min_cosine"}

    every: int = option(default=40, help="Interval between nowcasts [steps].", at_least=1)
    stride: int = option(default=20, help="Interval between the snapshots of the history [steps].", at_least=1)
    min_cosine: float = option(
        default=MIN_COSINE,
        help="Minimum cosine similarity of the last two displacements of the running average at which a nowcast moves "
        "the weights; -1 accepts every direction.",
    )

    @property
    def policy(self) -> NowcastPolicy:
        """The policy with these parameters."""
        return NowcastPolicy(self.every, self.stride, min_cosine=self.min_cosine)


class NowcastEvent(NamedTuple):
    """The record of one nowcast.

    Attributes:
        step: number of steps before the nowcast [steps].
        loss_before: mean guard loss of the last snapshot, from which the forecasts start; None without a guard, or if
            the history was not finite.
        loss_after: mean guard loss of the best proposal; None without a guard, or without a finite proposal.
        accepted: whether the best proposal was accepted.
        horizon: horizon of the best proposal; None without a finite proposal [steps].
        followed: whether the weights moved. An accepted forecast of a running average does not necessarily move them.
        guard_calls: number of calls of the guard [count].
    """

    step: int
    loss_before: float | None
    loss_after: float | None
    accepted: bool
    horizon: int | None = None
    followed: bool = False
    guard_calls: int = 0

    @property
    def gain(self) -> float:
        """By how much the best proposal lowers the mean loss of the guard; 0 if it was not accepted or not measured."""
        if not self.accepted or self.loss_before is None or self.loss_after is None:
            return 0.0
        return self.loss_before - self.loss_after


def rank(losses: Float[Tensor, "*rows examples"]) -> Float[Tensor, "*rows"]:
    """The mean loss of each row, by which proposals are ranked. A mean that is not finite becomes +∞."""
    means = losses.mean(-1)
    return torch.where(means.isfinite(), means, torch.inf)


def accepts(before: Float[Tensor, "*rows examples"], after: Float[Tensor, "*rows examples"]) -> Bool[Tensor, "*rows"]:
    """Whether the mean loss decreased by at least one standard error of the paired differences.

    The margin is necessary because the best of several proposals has a lower loss by chance. If there is a single loss
    per row, it must not increase.
    """
    return _decreased(before, after, standard_errors=1)


def tolerates(before: Float[Tensor, "*rows examples"], after: Float[Tensor, "*rows examples"]) -> Bool[Tensor, "*rows"]:
    """Whether the mean loss increased by at most one standard error of the paired differences.

    If there is a single loss per row, it must not increase.
    """
    return _decreased(before, after, standard_errors=-1)


def as_horizons(horizons: int | Sequence[int] | None) -> tuple[int, ...]:
    """Convert a horizon or a sequence of horizons to a tuple; None becomes an empty tuple.

    Raises:
        InvalidConfig: the sequence is empty.
    """
    if horizons is None:
        return ()
    as_tuple = (horizons,) if isinstance(horizons, int) else tuple(horizons)
    if not as_tuple:
        raise InvalidConfig("horizons is empty; expected steps such as [20, 60], or None for the default horizons")
    return as_tuple


def make_policy(policy: NowcastPolicy | None, **parameters: Any) -> NowcastPolicy:
    """The given policy, or one with the given parameters; those that are None have their defaults.

    Raises:
        InvalidConfig: both are given, or a parameter is invalid.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    if policy is not None:
        if given:
            raise InvalidConfig(f"policy is given together with {', '.join(given)}; set these in the policy")
        return policy
    if "horizons" in given:
        given["horizons"] = as_horizons(given["horizons"])
    return NowcastPolicy(**given)


def _decreased(before: Tensor, after: Tensor, standard_errors: int) -> Bool[Tensor, "*rows"]:
    """Whether the mean loss decreased by at least `standard_errors` times the standard error of the differences."""
    decrease = before - after
    count = decrease.shape[-1]
    error = decrease.std(-1) / count**0.5 if count > 1 else decrease.new_zeros(decrease.shape[:-1])
    margin = decrease.mean(-1) - standard_errors * error
    return (margin >= 0) & margin.isfinite()


def _cosine(snapshots: Snapshots, indices: Sequence[int]) -> Float[Tensor, "*rows"]:
    """Cosine similarity of the displacements between three snapshots; NaN if one of them is zero."""
    *rows, size = snapshots.rows[-1].shape
    part_size = _WEIGHTS_AT_ONCE if snapshots.device.type == "cpu" else _WEIGHTS_ON_DEVICE
    dtype = torch.float32 if snapshots.device.type == "mps" else torch.float64  # mps has no float64
    sums = torch.zeros(3, *rows, dtype=dtype, device=snapshots.device)
    for begin in range(0, size, part_size):
        part = snapshots.read(begin, min(begin + part_size, size), indices)
        first, second = part.diff(dim=-2).unbind(-2)
        sums += torch.stack([(first * second).sum(-1), first.square().sum(-1), second.square().sum(-1)])
    inner_product, first_square, second_square = sums
    return inner_product / (first_square * second_square).sqrt()
