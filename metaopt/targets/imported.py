"""Checks of code at a dotted path, as far as they are possible without calling it."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from torch import nn

from ..core.errors import InvalidConfig
from ..core.text import shown

_EXPECTED = "expected a torch.nn.Module class or a function, written in Python, that returns a module"


def check_makes_networks(path: str, imported: Any) -> None:
    """Check that an object makes networks, before it is called: the call of another function could do anything.

    Args:
        path: where it was imported from, for messages.
    Raises:
        InvalidConfig: it is neither a `torch.nn.Module` class nor a function that may return a module.
    """
    make = _unwrapped(imported)
    if isinstance(make, type):
        if not issubclass(make, nn.Module):
            raise InvalidConfig(f"{shown(path)} is a class that is no torch.nn.Module; {_EXPECTED}")
    elif not (inspect.isfunction(make) or inspect.ismethod(make)):
        raise InvalidConfig(f"{shown(path)} is {type(imported).__name__}; {_EXPECTED}")
    elif not _may_return_module(make):
        raise InvalidConfig(f"{shown(path)} returns no module, as its annotation states; {_EXPECTED}")


def _unwrapped(imported: Any) -> Any:
    """What partial functions and decorators call in the end."""
    while isinstance(imported, functools.partial) or hasattr(imported, "__wrapped__"):
        imported = imported.func if isinstance(imported, functools.partial) else imported.__wrapped__
    return imported


def _may_return_module(function: Callable[..., Any]) -> bool:
    """Whether the annotated return type is, or may be, a module; true for a function without that annotation."""
    try:
        returned = typing.get_type_hints(function).get("return", nn.Module)
    except Exception:  # an annotation is an expression, which can fail in any way
        return True
    union = typing.get_origin(returned) in (typing.Union, types.UnionType)
    kinds = typing.get_args(returned) if union else (returned,)
    return not all(isinstance(kind, type) and not _is_related(kind) for kind in kinds)


def _is_related(kind: type) -> bool:
    return issubclass(kind, nn.Module) or issubclass(nn.Module, kind)
