"""Names for things: our own tables plus the entry points of outside packages, and paths into anyone's code."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import UnknownName

_IMPORT_FAILURES = (Exception, SystemExit)  # a module may do anything when it is imported


class Registry:
    """Finds a class by its name and imports it only then.

    Args:
        kind: what the names stand for, as a user would say it ("target model").
        group: the entry-point group in which outside packages add names ("metaopt.targets").
        table: the names of metaopt itself, each as "module:object".
        older_groups: groups that earlier versions used and that are still read.
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, str], older_groups: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self.groups = (group, *older_groups)
        self._table = dict(table)

    @property
    def table(self) -> list[str]:
        """The names of metaopt itself, sorted."""
        return sorted(self._table)

    def names(self) -> list[str]:
        """Every known name, sorted; those of installed plug-ins included."""
        return sorted({*self._table, *(point.name for point in self.plugins())})

    def get(self, name: str) -> Any:
        """The object behind a name.

        Raises:
            UnknownName: no table and no plug-in has it; the message lists the nearest names. Or a plug-in has it
                but cannot be imported; the message says why.
        """
        if name in self._table:
            module, _, attribute = self._table[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        point = self._plugin(name)
        try:
            return point.load()
        except _IMPORT_FAILURES as error:
            raise UnknownName(
                f"the {self.kind} {name!r} of {self.origin(name)} cannot be imported ({_reason(error)}); "
                "fix or uninstall that package"
            ) from error

    def origin(self, name: str) -> str:
        """Which distribution provides a name: `metaopt`, or name and version of an outside one. Imports nothing.

        Raises:
            UnknownName: no table and no plug-in has it; the message lists the nearest names.
        """
        if name in self._table:
            return "metaopt"
        point = self._plugin(name)
        return f"{point.dist.name} {point.dist.version}" if point.dist else point.module

    def plugins(self, name: str | None = None) -> list[EntryPoint]:
        """The entry points of outside packages, all or those of a name; the present group first."""
        found = [point for group in self.groups for point in entry_points(group=group)]
        return found if name is None else [point for point in found if point.name == name]

    def _plugin(self, name: str) -> EntryPoint:
        for point in self.plugins(name):
            return point
        raise UnknownName(f"unknown {self.kind} {name!r}: {suggest(name, self.names())}")


def load_path(path: str) -> Any:
    """The object at `package.module:attribute`; importing its module runs whatever code stands there.

    Raises:
        UnknownName: the module does not import, with the reason, or has no such attribute, with the nearest ones.
    """
    place, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(place)
    except _IMPORT_FAILURES as error:
        raise UnknownName(
            f"{path!r} names no code: importing {place!r} fails ({_reason(error)}). Expected "
            "package.module:attribute of something that Python can import; a file of your own may need PYTHONPATH=."
        ) from error
    if not hasattr(module, attribute):
        raise UnknownName(f"{place} has no {attribute!r}: {suggest(attribute, _public(module))}")
    return getattr(module, attribute)


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known ones first, then all of them."""
    known = list(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    everything = f"known are {', '.join(known)}"
    return f"did you mean {' or '.join(near)}? ({everything})" if near else everything


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _public(module: object) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]
