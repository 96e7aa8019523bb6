"""Colours of all figures.

References: Okabe & Ito 2008, Color Universal Design: eight colours that colour-blind readers can distinguish.
Departs: their yellow is left out, which is hard to see on white.
"""

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"

INK = "#222222"
MUTED = "#777777"

HEAT = ("#FFFFFF", "#CFE6F7", SKY, BLUE, "#0B2A4A")
"""Scale from zero to one."""

HEIGHTS = ("#FFFFFF", "#F3F5F7", "#DDE3E9", "#C3CDD6")
"""Pale scale for a background."""

_EARLY, _LATE = (0xA8, 0xD4, 0xF2), (0x0B, 0x2A, 0x4A)


def in_order(count: int) -> list[str]:
    """Colours of a sequence, light to dark: readers distinguish them without hues."""
    shares = [place / (count - 1) if count > 1 else 1.0 for place in range(count)]
    return [_mixed(_EARLY, _LATE, share) for share in shares]


def _mixed(first: tuple[int, ...], last: tuple[int, ...], share: float) -> str:
    parts = (round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
    return "#" + "".join(f"{part:02X}" for part in parts)
