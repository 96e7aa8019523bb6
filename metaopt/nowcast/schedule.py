"""When nowcasts take place and how far they look ahead."""

from collections.abc import Sequence

from ..errors import InvalidConfig


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
            f"Take every={max(round(every / stride), 1) * stride}"
        )


def choose_horizons(every: int, horizon: int | None, horizons: Sequence[int] | None) -> tuple[int, ...]:
    """The horizons that are proposed at each nowcast; one as long as `every` unless others are given [steps].

    Raises:
        InvalidConfig: both are given, or `horizons` is empty.
    """
    if horizons is None:
        return (every if horizon is None else horizon,)
    if horizon is not None or not horizons:
        raise InvalidConfig(f"horizon is {horizon} and horizons is {horizons!r}; expected one of the two, not empty")
    return tuple(horizons)
