"""Checks of the states of memories, which users keep, change and load."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..core.errors import LayoutMismatch
from ..core.text import shown


def check_state(state: Any, kind: type[tuple[Any, ...]], expected: tuple[Any, ...], source: str) -> None:
    """Check the type of a state and the shapes of all tensors in it.

    Args:
        kind: the type, a named tuple.
        expected: `shapes_of` a valid state.
        source: where a valid state comes from, for the message.
    Raises:
        LayoutMismatch: the state is of another type, or a field of it has other shapes.
    """
    if not isinstance(state, kind):
        raise LayoutMismatch(f"a state of the type {type(state).__name__}; expected {kind.__name__}, {source}")
    for name, given, wanted in zip(kind.__annotations__, shapes_of(state), expected, strict=True):
        if given != wanted:
            raise LayoutMismatch(f"a state with {name} of shape {shown(given)}; expected {shown(wanted)}, {source}")


def shapes_of(state: Any) -> Any:
    """The same structure of tuples and mappings, with the shapes of tensors in place of tensors."""
    if isinstance(state, Tensor):
        return tuple(state.shape)
    if isinstance(state, Mapping):
        return {name: shapes_of(part) for name, part in state.items()}
    if isinstance(state, tuple | list):
        return tuple(shapes_of(part) for part in state)
    return state
