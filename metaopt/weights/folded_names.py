"""Folds the names of many tensors into few lines: blocks and layers of the same structure become one pattern.

    from metaopt.weights.folded_names import fold

    names = {f"blocks.{block}.{part}.weight": (8, 8) for block in range(30) for part in "kqv"}
    print(fold(names))  # [FoldedModules(pattern='blocks.0-29.{k,q,v}', number=90, tensors=(('.weight', (8, 8)),))]

Names are divided at dots and slashes. Each piece keeps its separator, so that pieces join to the name again.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MOST_PIECES = 32
"""Pieces of a name that are told apart [count]; what follows is one more piece."""

_PIECE = re.compile(r"(?:^|[./])[^./]*")
_NUMBER = re.compile(r"[./]?[0-9]+")
_NUMBERS = re.compile(r"[./]?[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_MOST_TENSORS = 6  # of a module in one line; those of more are listed one by one


class FoldedModules(NamedTuple):
    """Modules of the same structure.

    Attributes:
        pattern: their names, folded: `blocks.0-29.cross_attn.{k,o,q,v}`; empty for the network itself.
        number: how many modules these are [count].
        tensors: the rest of the name of each of their tensors, and what was given for it. A tensor beside submodules
            stands alone: its rest is empty, and `pattern` is its name.
    """

    pattern: str
    number: int
    tensors: tuple[tuple[str, Any], ...]

    @property
    def group(self) -> str:
        """The block that they belong to: the pattern up to its first number, else its first piece."""
        return group_of(self.pattern)


def fold(specs: Mapping[str, Hashable]) -> list[FoldedModules]:
    """Fold the names of tensors, in natural order.

    Args:
        specs: what must be equal for tensors to be folded, by name: shape and dtype, say.
    """
    root = _Node()
    for name, spec in specs.items():
        *modules, leaf = pieces(name)
        node = root
        for piece in modules:
            node = node.children.setdefault(piece, _Node())
        node.tensors[leaf] = spec
    root.sign({})
    return _folded(root) if specs else []


def pieces(name: str) -> list[str]:
    """The pieces of a name, each with its separator: `["blocks", ".0", ".weight"]`."""
    found = [match[0] for match in _PIECE.finditer(name)]
    return found if len(found) <= MOST_PIECES else [*found[:MOST_PIECES], "".join(found[MOST_PIECES:])]


def group_of(name: str) -> str:
    """The block of a name or of a pattern: up to its first number, else its first piece."""
    found = pieces(name)
    numbered = next((place for place, piece in enumerate(found) if _NUMBERS.fullmatch(piece)), 0)
    return "".join(found[: numbered + 1])


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in names by their values: `blocks.2` before `blocks.10`."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if place % 2 else (1, 0, part) for place, part in enumerate(parts)]


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as text: `0-9,12`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, each)) for each in found)


def number_in(group: str) -> int:
    """How many blocks a group stands for: 30 for `blocks.0-29`."""
    last = pieces(group)[-1].lstrip("./")
    if not _NUMBERS.fullmatch(last):
        return 1
    bounds = [[int(number) for number in part.split("-")] for part in last.split(",")]
    return sum(part[-1] - part[0] + 1 for part in bounds)


class _Node:
    """A module: its submodules and its own tensors by piece, and a number that equal structures share."""

    __slots__ = ("children", "signature", "tensors")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.tensors: dict[str, Hashable] = {}
        self.signature = -1

    @property
    def is_leaf(self) -> bool:
        """Whether it has tensors only, and not too many for one line."""
        return not self.children and len(self.tensors) <= _MOST_TENSORS

    def sign(self, known: dict[Hashable, int]) -> int:
        children = sorted((piece, child.sign(known)) for piece, child in self.children.items())
        structure = (tuple(children), frozenset(self.tensors.items()))
        self.signature = known.setdefault(structure, len(known))
        return self.signature


def _folded(node: _Node) -> list[FoldedModules]:
    if node.is_leaf:
        tensors = sorted(node.tensors.items(), key=lambda item: (not item[0].endswith("weight"), item[0]))
        return [FoldedModules("", 1, tuple(tensors))]
    own = sorted(node.tensors.items(), key=lambda item: natural(item[0]))
    found = [FoldedModules(piece, 1, (("", spec),)) for piece, spec in own]
    for alike in _alike(node):
        pattern = _pattern(alike)
        inner = _folded(node.children[alike[0]])
        found += [each._replace(pattern=pattern + each.pattern, number=len(alike) * each.number) for each in inner]
    return found


def _alike(node: _Node) -> Iterable[list[str]]:
    """The submodules of a module, grouped: those with a number, or without submodules, that have one structure."""
    groups: dict[Hashable, list[str]] = {}
    for piece in sorted(node.children, key=natural):
        child, number = node.children[piece], bool(_NUMBER.fullmatch(piece))
        foldable = number or child.is_leaf
        groups.setdefault((child.signature, number, piece[:1] == "/") if foldable else piece, []).append(piece)
    return groups.values()


def _pattern(alike: Sequence[str]) -> str:
    if len(alike) == 1:
        return alike[0]
    separator = alike[0][0] if alike[0][0] in "./" else ""
    names = [piece.removeprefix(separator) for piece in alike]
    if _NUMBER.fullmatch(alike[0]):
        return separator + ranges(map(int, names))
    return f"{separator}{{{','.join(names)}}}"
