"""When nowcasts take place and how far they look ahead."""

from collections.abc import Sequence

from ..errors import InvalidConfig

REACH = 0.5
"""The share of the steps so far that a nowcast looks ahead at most."""

_USUAL = (0.5, 1.5, 4.0, 8.0)  # times `every`


def check_schedule(every: int, stride: int, *horizons: int) -> None:
    """Refuse steps at which no nowcast can take place.

    Raises:
        InvalidConfig: a number is not a positive whole one, or `every` is not a multiple of `stride`.
    """
    for name, value in (("every", every), ("stride", stride), *(("horizon", horizon) for horizon in horizons)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidConfig(f"{name} is {value!r}; expected a whole number of 1 or more [steps]")
    if every % stride:
        raise InvalidConfig(
            f"every is {every}, which is not a multiple of stride, {stride}: a nowcast starts from a snapshot. "
            f"Take every={whole_strides(every, stride)}"
        )


def whole_strides(steps: float, stride: int) -> int:
    """The multiple of the stride that is nearest to some steps, and at least one stride [steps]."""
    return max(round(steps / stride), 1) * stride


def usual_horizons(every: int, stride: int) -> tuple[int, ...]:
    """What is proposed unless told otherwise, and what live rounds learn: short to long ways ahead [steps].

    Which one is best changes in the course of a training; looking at several costs forward passes only.
    """
    return tuple(dict.fromkeys(whole_strides(factor * every, stride) for factor in _USUAL))


def within_reach(horizons: Sequence[int], step: int) -> tuple[int, ...]:
    """Those that are no longer than half of the steps so far, and always the shortest [steps].

    The first steps of a training say little about where hundreds of them lead. A guard approves of going far all the
    same, because the loss falls, and on small data it ends in worse solutions (docs/decisions/0013).
    """
    return tuple(horizon for horizon in horizons if horizon <= REACH * step) or (min(horizons),)


def choose_horizons(
    every: int, stride: int, horizon: int | None, horizons: Sequence[int] | None, guarded: bool
) -> tuple[int, ...]:
    """The horizons that are proposed at each nowcast: the usual ones, or `every` where no guard chooses [steps].

    Raises:
        InvalidConfig: both are given, or `horizons` is empty.
    """
    if horizons is None:
        usual = usual_horizons(every, stride) if guarded else (every,)
        return usual if horizon is None else (horizon,)
    if horizon is not None or not horizons:
        raise InvalidConfig(f"horizon is {horizon} and horizons is {horizons!r}; expected one of the two, not empty")
    return tuple(horizons)
