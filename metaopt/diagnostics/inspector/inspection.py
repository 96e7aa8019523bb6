"""An inspection: the networks of a file or a folder, compared with others, and the matrices that an adapter changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ...adapters.aliases import ALIASES, wrapper_of
from ...adapters.selection import Matrix, select_matrices
from ...core.errors import InvalidConfig
from ...weights.folded_names import FoldedModules, fold, number_in
from ...weights.networks import Network, networks_in
from ...weights.weight_files import Folder
from .parity import Parity, compare, paired


@dataclass(frozen=True)
class Block:
    """Modules of one block of a network, or of several blocks that are alike.

    Attributes:
        name: such as `blocks.0-29`.
        number: how many blocks are alike [count].
        modules: their modules, folded; each tensor with its shape and its dtype.
    """

    name: str
    number: int
    modules: tuple[FoldedModules, ...]

    @property
    def size(self) -> int:
        """How many numbers all their tensors have."""
        return sum(map(size_of, self.modules))


@dataclass(frozen=True)
class Inspection:
    """What the headers of some files tell.

    Attributes:
        source: the file or folder, as the user named it.
        networks: the networks in it, at least one.
        pickles: files that may contain weights and are not read.
        against: the other file or folder; None without a comparison.
        others: the networks in that.
        parities: the comparisons.
        targets: the matrices that an adapter would change, by the name of the network; None if none were asked for.
    """

    source: str
    networks: tuple[Network, ...]
    pickles: tuple[str, ...] = ()
    against: str | None = None
    others: tuple[Network, ...] = ()
    parities: tuple[Parity, ...] = ()
    targets: Mapping[str, Sequence[Matrix]] | None = field(default=None, repr=False)

    def alike(self) -> list[list[Network]]:
        """The networks, grouped by equal names, shapes and dtypes of their tensors."""
        groups: dict[object, list[Network]] = {}
        for network in self.networks:
            groups.setdefault(network.structure, []).append(network)
        return [*groups.values()]


def inspect_files(
    path: Path,
    source: str,
    *,
    against: tuple[Path, str] | None = None,
    aliases: str = "wan",
    include: str | None = None,
    exclude: str | None = None,
    layers: str | None = None,
) -> Inspection:
    """Inspect a file or a folder of safetensors. Only headers are read.

        from pathlib import Path
        from metaopt.diagnostics.inspector import blocks_of, inspect_files

        found = inspect_files(Path("trajectories/digits/seed_0"), "seed_0", include="layers")
        print(found.networks[0].size, [block.name for block in blocks_of(found.networks[0])])

    Args:
        path: the file or the folder.
        source: its name in messages and reports.
        against: another file or folder to compare with, and its name.
        aliases: table of other spellings of names, `none` for none.
        include, exclude, layers: choose the matrices that an adapter would change, as in `select_matrices`. A network
            of a folder in which `include` matches nothing has none.
    Raises:
        FileFormatError, InvalidConfig: a file cannot be used, or an argument does not fit the networks.
    """
    folder, table = Folder(path), ALIASES.get(aliases)
    networks = networks_in(folder)
    others = networks_in(Folder(against[0])) if against else ()
    pairs = paired(networks, others) if against else []
    parities = tuple(compare(one, other, table) for one, other in pairs)
    targets = None
    if (include, exclude, layers) != (None, None, None):
        targets = _targets(networks, {"include": include, "exclude": exclude, "layers": layers, "aliases": table})
    name = against[1] if against else None
    return Inspection(source, networks, tuple(folder.pickles), name, others, parities, targets)


def blocks_of(network: Network) -> list[Block]:
    """The blocks of a network in natural order, without a prefix that programs add to all names."""
    prefix = wrapper_of(network.tensors)
    specs = {name.removeprefix(prefix): (entry.shape, entry.dtype) for name, entry in network.tensors.items()}
    by_block: dict[str, list[FoldedModules]] = {}
    for modules in fold(specs):
        by_block.setdefault(modules.group, []).append(modules)
    return [Block(name, number_in(name), tuple(modules)) for name, modules in by_block.items()]


def size_of(modules: FoldedModules) -> int:
    """How many numbers the tensors of folded modules have."""
    return modules.number * sum(prod(shape) for _, (shape, _) in modules.tensors)


def _targets(networks: Sequence[Network], choice: Mapping[str, Any]) -> dict[str, Sequence[Matrix]]:
    """The chosen matrices of each network that has any.

    Raises:
        InvalidConfig: none has; the error of the largest network.
    """
    found: dict[str, Sequence[Matrix]] = {}
    errors: dict[int, InvalidConfig] = {}
    for network in networks:
        try:
            found[network.name] = select_matrices(
                {name: each.shape for name, each in network.tensors.items()}, **choice
            )
        except InvalidConfig as error:
            errors[network.size] = error
    if not found:
        raise errors[max(errors)]
    return found
