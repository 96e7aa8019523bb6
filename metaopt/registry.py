"""Names for things: our own tables plus the entry points of outside packages."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from .errors import UnknownName


class Registry:
    """Finds a class by its name, importing it only then.

    Args:
        kind: what the names stand for, as a user would say it ("target model").
        group: the entry-point group in which outside packages add names ("metaopt.targets").
        table: our own names, each as "module:object".
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._table = dict(table)

    def names(self) -> list[str]:
        """Every known name, sorted; ours and those of installed plug-ins."""
        return sorted({*self._table, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> Any:
        """The object behind a name.

        Raises:
            UnknownName: no table and no plug-in has it; the message lists the nearest names.
        """
        if name in self._table:
            module, _, attribute = self._table[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        for point in entry_points(group=self.group, name=name):
            return point.load()
        raise UnknownName(f"unknown {self.kind} {name!r}: {suggest(name, self.names())}")


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known ones first, then all of them."""
    known = list(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    everything = f"known are {', '.join(known)}"
    return f"did you mean {' or '.join(near)}? ({everything})" if near else everything
