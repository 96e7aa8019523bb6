"""The policy of nowcasts: when one happens, what it proposes, what is accepted and what the weights follow.

The optimizer wrapper, online meta-training, its validation and the evaluation all ask the same `NowcastPolicy`, so a
generative optimizer is trained under the rules under which it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.config import Config, option
from ..core.errors import InvalidConfig

MIN_COSINE = 0.7
"""Least cosine between two successive displacements of the average for the weights to follow a forecast."""

_DEFAULT_HORIZONS = (0.5, 1.5, 4.0, 8.0)  # times `every`
_WEIGHTS_AT_ONCE = 2**20  # compared at a time, which bounds memory

Losses = Float[Tensor, "*rows examples"]
"""What a guard measured: a loss per example, or a single one."""


class Choice(NamedTuple):
    """Which of several proposals is best, and whether it is accepted."""

    best: Int[Tensor, "*rows"]
    accepted: Bool[Tensor, "*rows"]


@dataclass(frozen=True)
class NowcastPolicy:
    """Decides about nowcasts from step counts, guard losses and the history; holds no state.

        policy = NowcastPolicy(every=40, stride=20, horizons=(20, 60, 160))
        policy.proposed(step=100)  # (20,): no horizon is longer than half of the steps so far, except the shortest

    Attributes:
        every: steps from one nowcast to the next; a multiple of the stride [steps].
        stride: steps between the snapshots of the history [steps].
        horizons: how far ahead forecasts look; empty for four from half to eight times `every` [steps].
        min_cosine: least cosine between two successive displacements of the average for the weights to follow a
            forecast of it; −1 asks the guard alone (docs/decisions/0014).
        max_share: longest horizon as a share of the steps so far (docs/decisions/0013).
    Raises:
        InvalidConfig: steps that are not positive whole numbers, `every` is not a multiple of `stride`, or a cosine
            outside of [−1, 1].
    """

    every: int = 40
    stride: int = 20
    horizons: tuple[int, ...] = ()
    min_cosine: float = MIN_COSINE
    max_share: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizons", tuple(self.horizons))
        steps = (("every", self.every), ("stride", self.stride), *(("a horizon", each) for each in self.horizons))
        for name, value in steps:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidConfig(f"{name} is {value!r}; expected a whole number of 1 or more [steps]")
        if self.every % self.stride:
            raise InvalidConfig(
                f"every is {self.every}, which is not a multiple of stride, {self.stride}: a nowcast starts from a "
                f"snapshot. Take every={self.whole_strides(self.every)}"
            )
        if not -1 <= self.min_cosine <= 1:
            raise InvalidConfig(f"min_cosine is {self.min_cosine!r}; expected a cosine from -1 to 1")

    @property
    def all_horizons(self) -> tuple[int, ...]:
        """Every horizon that a guarded nowcast may propose [steps]."""
        defaults = (self.whole_strides(factor * self.every) for factor in _DEFAULT_HORIZONS)
        return self.horizons or tuple(dict.fromkeys(defaults))

    def whole_strides(self, steps: float) -> int:
        """The multiple of the stride that is nearest to some steps, and at least one stride [steps]."""
        return max(round(steps / self.stride), 1) * self.stride

    def snapshot_due(self, step: int) -> bool:
        """Whether a snapshot is taken after a step."""
        return step % self.stride == 0

    def nowcast_due(self, step: int) -> bool:
        """Whether a nowcast takes place after a step."""
        return step % self.every == 0

    def proposed(self, step: int, *, guarded: bool = True) -> tuple[int, ...]:
        """The horizons to propose after a step [steps].

        Without a guard nothing can choose between them: it is the first one given, or `every`.
        """
        if not guarded:
            return self.horizons[:1] or (self.every,)
        within = tuple(each for each in self.all_horizons if each <= self.max_share * step)
        return within or (min(self.all_horizons),)

    def longest(self, step: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """The longest horizon that may be proposed after each of several step counts [steps]."""
        return (self.max_share * step).clamp(min(self.all_horizons), max(self.all_horizons))

    def choose(
        self, before: Float[Tensor, "*rows examples"], after: Float[Tensor, "proposals *rows examples"]
    ) -> Choice:
        """Choose among proposals by the guard's losses, for many trainings at once.

        Args:
            before: losses of what the forecasts start from.
            after: losses of each proposal on the same examples.
        """
        best = rank(after).argmin(0)
        index = best.expand(1, *best.shape).unsqueeze(-1).expand(1, *after.shape[1:])
        return Choice(best, accepts(before, after.gather(0, index)[0]))

    def goes_straight(
        self, history: Float[Tensor, "*rows snapshots weights"], length: int, averaging: float
    ) -> Bool[Tensor, "*rows"]:
        """Whether a running average still moves in the direction in which it moved before.

        Where it turns back and forth instead, it moves by the noise of the last steps: what weights gain there by
        following a forecast is lost again within a hundred steps. The two displacements that are compared are as long
        as the average looks back, or as the history allows.

        Args:
            history: the snapshots so far, a stride apart, oldest first [raw units].
            length: how many snapshots the history holds once it is full [count]. A history that never holds three
                cannot tell, and the weights may follow; while it has fewer than three so far, they may not.
            averaging: decay of the running average that the snapshots are of.
        """
        so_far = history.shape[-2]
        if so_far < 3:
            return torch.full(history.shape[:-2], length < 3)
        span = max(min(round(1 / (1 - averaging)) // self.stride, (so_far - 1) // 2), 1)
        return _cosine(history[..., -1 - 2 * span :: span, :]) >= self.min_cosine


class PolicyConfig(Config):
    """The parameters of a policy, for configurations that have one."""

    renamed: ClassVar[Mapping[str, str]] = {"straight": "min_cosine"}

    every: int = option(default=40, help="Steps from one nowcast to the next [steps].", at_least=1)
    stride: int = option(default=20, help="Steps between the snapshots of the history [steps].", at_least=1)
    min_cosine: float = option(
        default=MIN_COSINE,
        help="Least cosine between two successive displacements of the average for the weights to follow a forecast; "
        "-1 asks the guard alone.",
    )

    @property
    def policy(self) -> NowcastPolicy:
        """The policy that the parameters describe."""
        return NowcastPolicy(self.every, self.stride, min_cosine=self.min_cosine)


class NowcastEvent(NamedTuple):
    """What one nowcast proposed and what became of it; losses are the guard's, None without a guard.

    Attributes:
        step: when it took place [steps].
        loss_before: mean loss of what the forecast starts from.
        loss_after, horizon: mean loss and horizon [steps] of the best proposal; None where none was finite.
        accepted: whether the best proposal is kept for the average, or for the weights if the forecast is of them.
        followed: whether the weights moved. A forecast of a running average can be accepted without that.
        guard_calls: how often the guard was called [count].
    """

    step: int
    loss_before: float | None
    loss_after: float | None
    accepted: bool
    horizon: int | None = None
    followed: bool = False
    guard_calls: int = 0


def rank(losses: Float[Tensor, "*rows examples"]) -> Float[Tensor, "*rows"]:
    """The mean loss, by which the best proposal is the lowest; infinite where it is not finite."""
    means = losses.mean(-1)
    return torch.where(means.isfinite(), means, torch.inf)


def accepts(before: Float[Tensor, "*rows examples"], after: Float[Tensor, "*rows examples"]) -> Bool[Tensor, "*rows"]:
    """Whether losses fell by at least their standard error; a single loss must not have risen.

    The best of several proposals looks a little better by chance alone.
    """
    return _fell(before, after, standard_errors=1)


def tolerates(before: Float[Tensor, "*rows examples"], after: Float[Tensor, "*rows examples"]) -> Bool[Tensor, "*rows"]:
    """Whether losses rose by no more than their standard error; a single loss must not have risen."""
    return _fell(before, after, standard_errors=-1)


def as_horizons(horizons: int | Sequence[int] | None) -> tuple[int, ...]:
    """One horizon, several or none as a tuple.

    Raises:
        InvalidConfig: an empty sequence.
    """
    if horizons is None:
        return ()
    several = (horizons,) if isinstance(horizons, int) else tuple(horizons)
    if not several:
        raise InvalidConfig("horizons is empty; expected steps such as [20, 60], or None for the default horizons")
    return several


def _fell(before: Tensor, after: Tensor, standard_errors: int) -> Bool[Tensor, "*rows"]:
    """Whether the mean loss fell by at least so many standard errors of the paired differences."""
    drop = before - after
    count = drop.shape[-1]
    error = drop.std(-1) / count**0.5 if count > 1 else torch.zeros(drop.shape[:-1], dtype=drop.dtype)
    margin = drop.mean(-1) - standard_errors * error
    return (margin >= 0) & margin.isfinite()


def _cosine(three: Float[Tensor, "*rows 3 weights"]) -> Float[Tensor, "*rows"]:
    """Between the displacement from the first to the second and that from there to the third; NaN where one is zero."""
    products = torch.zeros(3, *three.shape[:-2], dtype=torch.float64)
    for part in three.split(_WEIGHTS_AT_ONCE, -1):
        then, now = part.diff(dim=-2).unbind(-2)
        products += torch.stack([(then * now).sum(-1), then.square().sum(-1), now.square().sum(-1)])
    aligned, before, after = products
    return aligned / (before * after).sqrt()
