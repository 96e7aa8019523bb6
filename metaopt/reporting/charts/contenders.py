"""Line styles of contenders, the same in every chart. Add the style of a new baseline here."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...evaluation.results import CHAMPION, HOLD, NOWCAST_EMA, Comparison
from ...figures.colours import BLACK, BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, VERMILION

CANDIDATE = VERMILION
"""Colour of the evaluated optimizer."""

CONTROL = "#999999"
"""Colour of the controls."""


@dataclass(frozen=True)
class ContenderStyle:
    """Style of a contender.

    Attributes:
        width: line width [points].
        prominent: whether the chart of loss curves shows it.
        order: drawing order; higher is drawn later.
    """

    colour: str
    width: float = 1.6
    linestyle: str = "-"
    prominent: bool = True
    order: int = 2


_STYLES: Mapping[str, ContenderStyle] = {
    HOLD: ContenderStyle(BLACK, order=3, linestyle="--"),  # dashes show the curves below it
    "EMA 0.98": ContenderStyle(SKY),
    "line": ContenderStyle(ORANGE),
    "slopes": ContenderStyle(ORANGE, width=1.0, linestyle="--"),
    CHAMPION: ContenderStyle(GREEN),
    "cosine": ContenderStyle(PURPLE),
    "schedule-free": ContenderStyle(BLUE),
}
_OTHER = ContenderStyle(MUTED, width=1.0, prominent=False, order=1)


def contender_styles(comparison: Comparison) -> dict[str, ContenderStyle]:
    """The style of each contender, in the order of the comparison."""
    candidate = comparison.candidate
    second = ContenderStyle(CANDIDATE, width=1.1, linestyle="--")
    styles = {
        **_STYLES,
        candidate: ContenderStyle(CANDIDATE, width=2.4, order=4),
        f"{candidate} + {NOWCAST_EMA}": second,
        f"{candidate} without {NOWCAST_EMA}": second,
    }
    return {name: styles.get(name, _OTHER) for name in comparison.contenders}
