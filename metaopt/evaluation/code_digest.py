"""A digest of the code of classes, by which a cache notices that a network or an optimizer was edited."""

import hashlib
import inspect
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType


def code_digest(*sources: type | ModuleType) -> str:
    """A digest of the source files of modules and of classes with all their base classes.

        code_digest(*{type(module) for module in model.modules()})

    Code that these files import is not part of it. A class without a source file, such as one that was typed into an
    interpreter, counts by its name.
    """
    parts: set[str] = set()
    for source in sources:
        classes: Iterable[type | ModuleType] = source.__mro__ if isinstance(source, type) else (source,)
        parts.update(map(_digest, classes))
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:32]


def _digest(source: type | ModuleType) -> str:
    try:
        path = inspect.getsourcefile(source)
    except TypeError:  # built into Python, or typed into an interpreter
        path = None
    name = source.__module__ if isinstance(source, type) else source.__name__
    return f"{name} {_file_digest(Path(path)) if path else getattr(source, '__qualname__', '')}"


@cache
def _file_digest(path: Path) -> str:
    """A module that was imported does not change within a process, so each file is read once."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # for example inside a zip archive
        return str(path)
