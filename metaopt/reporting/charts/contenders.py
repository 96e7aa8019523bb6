"""How each contender looks in every figure: a new one is added here."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...evaluation.read_outs import READ_OUT_OF_NOWCASTS
from ...evaluation.results import CHAMPION, HOLD, Comparison
from ...figures.colours import BLACK, BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, VERMILION

JUDGED = VERMILION
"""Colour of the judged optimizer."""

CONTROL = "#999999"
"""Colour of what is spoilt on purpose."""


@dataclass(frozen=True)
class LineStyle:
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


_LOOKS: Mapping[str, LineStyle] = {
    HOLD: LineStyle(BLACK, order=3, dashed=True),  # dashes let one see who went the same way
    "EMA 0.98": LineStyle(SKY),
    "line": LineStyle(ORANGE),
    "slopes": LineStyle(ORANGE, width=1.0, dashed=True),
    CHAMPION: LineStyle(GREEN),
    "cosine": LineStyle(PURPLE),
    "schedule-free": LineStyle(BLUE),
}
_OTHER = LineStyle(MUTED, width=1.0, prominent=False, order=1)


def looks(comparison: Comparison) -> dict[str, LineStyle]:
    """A look for each contender, in their order."""
    judged = comparison.judged
    ours = {
        judged: LineStyle(JUDGED, width=2.4, order=4),
        f"{judged} + {READ_OUT_OF_NOWCASTS}": LineStyle(JUDGED, width=1.1, dashed=True),
        f"{judged} without {READ_OUT_OF_NOWCASTS}": LineStyle(JUDGED, width=1.1, dashed=True),
    }
    return {name: ours.get(name) or _LOOKS.get(name, _OTHER) for name in comparison.contenders}
