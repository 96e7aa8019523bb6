"""How each contender looks in every figure: a new one is added here."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...figures.colours import BLACK, BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, VERMILION
from ..readouts import READ_OUT_OF_NOWCASTS
from ..results import CHAMPION, HOLD, Comparison

JUDGED = VERMILION
"""Colour of the judged optimizer."""

CONTROL = "#999999"
"""Colour of what is spoilt on purpose."""


@dataclass(frozen=True)
class Look:
    """Colour, width [points] and dashes of a contender; those that are not prominent have no loss curve in files."""

    colour: str
    width: float = 1.6
    dashed: bool = False
    prominent: bool = True
    order: int = 2

    @property
    def dash(self) -> str:
        """As Plotly calls it."""
        return "dash" if self.dashed else "solid"

    @property
    def linestyle(self) -> str:
        """As Matplotlib calls it."""
        return "--" if self.dashed else "-"


_LOOKS: Mapping[str, Look] = {
    HOLD: Look(BLACK, order=3, dashed=True),  # dashes let one see who went the same way
    "EMA 0.98": Look(SKY),
    "line": Look(ORANGE),
    "slopes": Look(ORANGE, width=1.0, dashed=True),
    CHAMPION: Look(GREEN),
    "cosine": Look(PURPLE),
    "schedule-free": Look(BLUE),
}
_OTHER = Look(MUTED, width=1.0, prominent=False, order=1)


def looks(comparison: Comparison) -> dict[str, Look]:
    """A look for each contender, in their order."""
    judged = comparison.judged
    ours = {
        judged: Look(JUDGED, width=2.4, order=4),
        f"{judged} + {READ_OUT_OF_NOWCASTS}": Look(JUDGED, width=1.1, dashed=True),
        f"{judged} without {READ_OUT_OF_NOWCASTS}": Look(JUDGED, width=1.1, dashed=True),
    }
    return {name: ours.get(name) or _LOOKS.get(name, _OTHER) for name in comparison.contenders}
