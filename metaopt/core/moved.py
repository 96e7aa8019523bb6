"""Deprecated modules, names and keyword arguments of metaopt 0.1, which still work with a DeprecationWarning.

Plug-in packages and scripts may use them for one more release; each warning states the replacement.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES: Mapping[str, str] = {
    "metaopt.callbacks": "metaopt.nowcast.integrations",
    "metaopt.callbacks.huggingface": "metaopt.nowcast.integrations.huggingface",
    "metaopt.callbacks.lightning": "metaopt.nowcast.integrations.lightning",
    "metaopt.configuration": "metaopt.core.config",
    "metaopt.errors": "metaopt.core.errors",
    "metaopt.generation": "metaopt.workflows.generate_weights",
    "metaopt.optimizers.average": "metaopt.generative.extrapolation",
    "metaopt.optimizers.base": "metaopt.generative.base",
    "metaopt.optimizers.files": "metaopt.generative.files",
    "metaopt.optimizers.hold": "metaopt.generative.extrapolation",
    "metaopt.optimizers.line": "metaopt.generative.extrapolation",
    "metaopt.optimizers.perceiver": "metaopt.generative.perceiver",
    "metaopt.optimizers.slopes": "metaopt.generative.extrapolation",
    "metaopt.registry": "metaopt.core.registry",
    "metaopt.tasks.classification": "metaopt.tasks.supervised",
    "metaopt.tasks.regression": "metaopt.tasks.supervised",
    "metaopt.training": "metaopt.recording",
    "metaopt.training.checkpoint": "metaopt.trajectories.checkpoint",
    "metaopt.training.optimizer": "metaopt.metatraining.trainer",
    "metaopt.training.target": "metaopt.recording.record",
    "metaopt.training.tracker": "metaopt.core.tracker",
}
"""New module by old one."""

_PACKAGES = ("metaopt.callbacks", "metaopt.training")


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name is deprecated and state its replacement.

    Args:
        stacklevel: as for `warnings.warn`; 3 is the caller of the function that warns.
    """
    warnings.warn(f"{old} is deprecated and will be removed; use {new}", DeprecationWarning, stacklevel=stacklevel)


def renamed_keywords(where: str, given: dict[str, Any], names: Mapping[str, str], known: dict[str, Any]) -> None:
    """Move the values of old keyword arguments to the new ones.

    Args:
        where: name of the callable, for messages.
        given: its unknown keyword arguments.
        names: new name by old name.
        known: its arguments by new name; receives the values.
    Raises:
        TypeError: a keyword that is neither old nor new, or both names of one argument.
    """
    for old, value in given.items():
        if old not in names:
            raise TypeError(f"{where} got an unexpected keyword argument {old!r}")
        if known.get(names[old]) is not None:
            raise TypeError(f"{where} got both {names[old]!r} and its old name {old!r}; give only {names[old]!r}")
        warn_renamed(f"{where}({old}=…)", f"{names[old]}=…", stacklevel=4)
        known[names[old]] = value


def moved_names(
    package: str, names: Mapping[str, str], otherwise: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package from which names have moved (PEP 562).

    Args:
        package: `__name__` of the package.
        names: "module:name" of the new place by old name.
        otherwise: `__getattr__` for all other names.
    """

    def get(name: str) -> Any:
        if name not in names:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        warn_renamed(f"{package}.{name}", f"{module}.{attribute}")
        return getattr(importlib.import_module(module), attribute)

    return get


def install() -> None:
    """Make the old modules importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return ModuleSpec(fullname, _Alias(), is_package=fullname in _PACKAGES)


class _Alias(Loader):
    """Fills an old module with the contents of the new one, so that both have the same classes."""

    def exec_module(self, module: ModuleType) -> None:
        new = MODULES[module.__name__]
        if module.__name__ not in _PACKAGES:
            warn_renamed(module.__name__, new)
        contents = vars(importlib.import_module(new))
        vars(module).update({name: value for name, value in contents.items() if not name.startswith("__")})
