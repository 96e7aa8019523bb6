"""The check of sizes that layers with heads share."""

from ..core.errors import InvalidConfig
from ..core.text import shown
from ..core.values import are_counts


def check_sizes(*, width: int, heads: int, **others: int) -> None:
    """Check the sizes of a layer.

    Raises:
        InvalidConfig: one is no integer of 1 or more, or the heads do not divide the width.
    """
    sizes = {"width": width, "heads": heads, **others}
    if not are_counts(*sizes.values()) or width % heads:
        raise InvalidConfig(f"sizes {shown(sizes)}; expected integers of 1 or more, heads that divide the width")
