"""Lazy imports: names of a package that import their module at first use.

`import torch` takes seconds, `import mlflow` longer. Shell completion, and scripts that use one name, import only what
they need.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package (PEP 562).

    Args:
        package: `__name__` of the package.
        modules: module of each name, relative to the package; `.core.text` is beside the package.
    """

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{modules[name]}", package), name)

    return import_name
