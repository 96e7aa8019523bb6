"""Names of a package that import their module when they are first used.

torch takes seconds to import and MLflow more: a shell that completes a word, or a script that uses one name, must not
wait for modules that it does not need.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for the `__init__.py` of a package (PEP 562).

    Args:
        package: its `__name__`.
        modules: the module of each name, relative to the package.
    """

    def import_name(name: str) -> Any:
        if name in modules:
            return getattr(import_module(f".{modules[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_name
