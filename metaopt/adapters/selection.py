"""Chooses the matrices that an adapter changes, by regular expressions on their names and by layers."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..core.errors import InvalidConfig
from ..core.text import shown
from ..weights.folded_names import natural, ranges
from .aliases import WAN, AliasTable

_WEIGHT = ".weight"
_SHOWN = 6  # names in a message
_NUMBER = re.compile(r"\.([0-9]{1,9})(?=\.|$)")
_LAYERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class Matrix(NamedTuple):
    """A matrix of a network.

    Attributes:
        module: name of the module whose `weight` it is.
        rows, columns: its shape; a linear layer has as many inputs as columns.
    """

    module: str
    rows: int
    columns: int


def matrices_of(shapes: Mapping[str, Sequence[int]]) -> list[Matrix]:
    """All matrices among the tensors of a network, in natural order: two-dimensional, and the `weight` of a module."""
    found = [
        Matrix(name.removesuffix(_WEIGHT), *shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(_WEIGHT)
    ]
    return sorted(found, key=lambda matrix: natural(matrix.module))


def select_matrices(
    shapes: Mapping[str, Sequence[int]],
    *,
    include: str | None = None,
    exclude: str | None = None,
    layers: str | None = None,
    aliases: AliasTable | None = WAN,
) -> list[Matrix]:
    """The matrices that an adapter changes.

        from metaopt.adapters import select_matrices

        shapes = {"blocks.0.cross_attn.k.weight": (64, 64), "blocks.0.self_attn.k.weight": (64, 64)}
        select_matrices(shapes, include=r"attn\\.k", exclude="attn1")  # without self_attn, which is attn1 in diffusers

    Args:
        shapes: shape of each tensor by name.
        include: regular expression that the name of a module must contain (`re.search`), in one of its spellings.
        exclude: regular expression that it must not contain in any spelling.
        layers: numbers of layers, such as `20-29` or `0,4,8-11`: the entries of the longest numbered list of modules.
        aliases: other spellings of names; None knows no others.
    Returns: the matrices in natural order, at least one.
    Raises:
        InvalidConfig: an expression does not compile or matches no matrix of the network; a layer does not exist;
            or no matrix is left.
    """
    everything = matrices_of(shapes)
    if not everything:
        raise InvalidConfig("the network has no matrices (two-dimensional tensors whose names end in .weight)")
    spelled = {each: aliases.spellings(each.module) if aliases else (each.module,) for each in everything}
    included = _matching("include", include, spelled) if include is not None else {*everything}
    excluded = _matching("exclude", exclude, spelled) if exclude is not None else set()
    in_layers = _in_layers(layers, everything) if layers is not None else {*everything}
    remaining = (included - excluded) & in_layers
    if not remaining:
        raise InvalidConfig(
            f"no matrix is left: of {len(everything):,}, include matches {len(included):,}, exclude {len(excluded):,} "
            f"of all, and {len(in_layers):,} are in the layers. Choose less to exclude, or other layers"
        )
    return [matrix for matrix in everything if matrix in remaining]


def parse_layers(text: str) -> set[int]:
    """The numbers of layers in a text such as `20-29` or `0,4,8-11`.

    Raises:
        InvalidConfig: the text has another form.
    """
    return {number for low, high in _ranges(text) for number in range(low, high + 1)}


def _ranges(text: str) -> list[tuple[int, int]]:
    """The first and the last number of each range in a text."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _LAYERS.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if high < low or high - low > 100_000:
            raise InvalidConfig(f"layers is {shown(text)}; expected numbers and ranges from low to high, such as 20-29")
        found.append((low, high))
    return found


def _matching(parameter: str, expression: str, spelled: Mapping[Matrix, tuple[str, ...]]) -> set[Matrix]:
    pattern = _compiled(parameter, expression)
    found = {matrix for matrix, names in spelled.items() if any(map(pattern.search, names))}
    if not found:
        raise InvalidConfig(
            f"{parameter} {shown(expression)} matches none of the {len(spelled):,} matrices, which have names such as "
            f"{_examples(spelled)}. Expected a regular expression that a part of a name matches, such as 'ffn' or "
            r"'attn\.(k|v)$'"
        )
    return found


def _compiled(parameter: str, expression: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about what a later Python may read differently
            return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidConfig(
            f"{parameter} is {shown(expression)}, which is no regular expression ({error}); write \\( for a bracket "
            "itself, and \\. for a dot"
        ) from error


def _in_layers(layers: str, everything: Iterable[Matrix]) -> set[Matrix]:
    """The matrices in some entries of the longest numbered list of modules; of each such list, if there are several.

    The ends of a range must exist; between them, entries may be missing or have no matrices.
    """
    asked, ends = parse_layers(layers), {end for ends in _ranges(layers) for end in ends}
    placed = {matrix: _place(matrix.module) for matrix in everything}
    lists: dict[str, set[int]] = {}
    for name, number in filter(None, placed.values()):
        lists.setdefault(name, set()).add(number)
    longest = max(map(len, lists.values()), default=0)
    existing = {name: numbers for name, numbers in lists.items() if len(numbers) == longest}
    if not existing or not ends <= set().union(*existing.values()):
        known = [f"{name or 'the network'} has the layers {ranges(numbers)}" for name, numbers in existing.items()]
        raise InvalidConfig(
            f"layers is {shown(layers)}: {', '.join(known[:_SHOWN]) or 'no module has a number in its name'}; expected "
            "layers that exist"
        )
    return {matrix for matrix, place in placed.items() if place and place[0] in existing and place[1] in asked}


def _place(module: str) -> tuple[str, int] | None:
    """The list of modules that a module is in, and its number there; None if it is in none."""
    match = _NUMBER.search(f".{module}")
    return (module[: max(match.start() - 1, 0)], int(match[1])) if match else None


def _examples(spelled: Mapping[Matrix, tuple[str, ...]]) -> str:
    """Some names that differ in more than numbers, in all their spellings."""
    kinds: dict[str, tuple[str, ...]] = {}
    for names in spelled.values():
        kinds.setdefault(re.sub("[0-9]+", "0", names[0]), names)
    return ", ".join(" or ".join(map(shown, names)) for names in [*kinds.values()][:_SHOWN])
