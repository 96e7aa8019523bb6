"""Registries: classes by name, from tables of metaopt and from entry points of plug-in packages."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import InvalidConfig, UnknownName
from .text import reason_of, shown

_IMPORT_FAILURES = (Exception, SystemExit)  # importing a module runs arbitrary code


class Registry:
    """Classes or functions by name, each imported at first use.

    Args:
        kind: what is registered, for error messages ("target model").
        group: entry-point group in which plug-in packages add names ("metaopt.targets").
        table: import path ("module:object") of each name that metaopt defines.
        older_groups: entry-point groups of earlier versions, which are still read.
        base: base class that the classes of plug-ins must have, with a `Config`; None for no check.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        table: Mapping[str, str],
        older_groups: tuple[str, ...] = (),
        base: type | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self.groups = (group, *older_groups)
        self._table = dict(table)
        self._base = base

    @property
    def table(self) -> list[str]:
        """Names that metaopt defines, sorted."""
        return sorted(self._table)

    def names(self) -> list[str]:
        """All names, those of installed plug-ins included, sorted."""
        return sorted({*self._table, *(point.name for point in self.plugins())})

    def get(self, name: str) -> Any:
        """Import the object of a name.

        Raises:
            UnknownName: neither metaopt nor a plug-in defines the name; the message lists the nearest names. Or the
                plug-in cannot be imported; the message states the reason.
            InvalidConfig: what the plug-in names is no class of this kind.
        """
        if name in self._table:
            module, _, attribute = self._table[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        point = self._plugin(name)
        try:
            found = point.load()
        except _IMPORT_FAILURES as error:
            raise UnknownName(
                f"the {self.kind} {shown(name)} of {self.origin(name)} cannot be imported ({reason_of(error)}); "
                "fix or uninstall that package"
            ) from error
        self._check_class(name, found)
        return found

    def _check_class(self, name: str, found: Any) -> None:
        if self._base is None:
            return
        # By name: a registered model has its own copy of the base class, of which the plug-in knows nothing.
        bases = [each.__name__ for each in found.__mro__] if isinstance(found, type) else []
        if self._base.__name__ not in bases or not isinstance(getattr(found, "Config", None), type):
            raise InvalidConfig(
                f"the {self.kind} {shown(name)} of {self.origin(name)} is {shown(found)}; expected a subclass of "
                f"{self._base.__name__} with a Config: correct the entry point of that package"
            )

    def origin(self, name: str) -> str:
        """The distribution that defines a name: `metaopt`, or a plug-in package with its version. Imports nothing.

        Raises:
            UnknownName: neither metaopt nor a plug-in defines the name; the message lists the nearest names.
        """
        if name in self._table:
            return "metaopt"
        point = self._plugin(name)
        return f"{point.dist.name} {point.dist.version}" if point.dist else point.module

    def plugins(self, name: str | None = None) -> list[EntryPoint]:
        """Entry points of plug-in packages, of all names or of one; those of older groups come last."""
        found = [point for group in self.groups for point in entry_points(group=group)]
        return found if name is None else [point for point in found if point.name == name]

    def _plugin(self, name: str) -> EntryPoint:
        for point in self.plugins(name):
            return point
        raise UnknownName(f"unknown {self.kind} {shown(name)}: {suggest(name, self.names())}")


def load_path(path: str) -> Any:
    """Import the object at `package.module:attribute`, which runs the code of that module.

    Raises:
        UnknownName: the module cannot be imported, or has no such attribute; the message states the reason or the
            nearest names.
    """
    name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(name)
    except _IMPORT_FAILURES as error:
        raise UnknownName(
            f"cannot import {shown(path)}: importing {shown(name)} fails ({reason_of(error)}). Expected "
            "package.module:attribute of a module that Python finds; a module in the working directory may need "
            "PYTHONPATH=."
        ) from error
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise UnknownName(f"{name} has no {shown(attribute)}: {suggest(attribute, public)}")
    return getattr(module, attribute)


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known names, then all known names."""
    known, name = list(known), str(name)[:100]  # comparing a text of thousands of characters takes seconds
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    everything = f"known are {', '.join(known)}"
    return f"did you mean {' or '.join(near)}? ({everything})" if near else everything
