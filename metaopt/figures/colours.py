"""The colours of all figures, drawn and interactive.

References: Okabe & Ito 2008, Color Universal Design: eight colours that colour-blind readers can tell apart. Departs:
their yellow is left out, which is hard to see on white.
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
FAINT = "#ECECEC"

_EARLY, _LATE = (0xA8, 0xD4, 0xF2), (0x0B, 0x2A, 0x4A)
_HEAT = ("#FFFFFF", "#CFE6F7", SKY, BLUE, "#0B2A4A")
_HEIGHTS = ("#FFFFFF", "#F3F5F7", "#DDE3E9", "#C3CDD6")


def in_order(count: int) -> list[str]:
    """Colours for things that follow on one another, light to dark, so that they can be told apart without hues."""
    shares = [place / (count - 1) if count > 1 else 1.0 for place in range(count)]
    return [_mixed(_EARLY, _LATE, share) for share in shares]


def heat() -> list[tuple[float, str]]:
    """A scale from none to much: share of the range, and colour."""
    return _scale(_HEAT)


def heights() -> list[tuple[float, str]]:
    """A pale scale for what lies behind other things: share of the range, and colour."""
    return _scale(_HEIGHTS)


def faded(colour: str, alpha: float) -> str:
    """A colour for the web that lets through what is behind it."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _scale(colours: tuple[str, ...]) -> list[tuple[float, str]]:
    return [(place / (len(colours) - 1), colour) for place, colour in enumerate(colours)]


def _mixed(first: tuple[int, ...], last: tuple[int, ...], share: float) -> str:
    parts = (round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
    return "#" + "".join(f"{part:02X}" for part in parts)
