"""Tables of an inspection: for people, where blocks of the same structure are one row, and for programs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from ...adapters.aliases import wrapper_of
from ...adapters.selection import Matrix
from ...core.documents import Table
from ...core.text import bytes_text, printable, shortened
from ...weights.folded_names import FoldedModules, fold
from ...weights.networks import Network
from ..report_folder import Rows
from .inspection import Block, Inspection, blocks_of, size_of
from .parity import KINDS, Difference, Parity


def networks_table(networks: Iterable[Network]) -> Table:
    """A row for each network."""
    heads = ["network", "expert", "files", "tensors", "weights", "dtypes", "size"]
    rows = [
        [
            printable(each.name),
            each.expert or "–",
            f"{len(each.files):,}",
            f"{len(each.tensors):,}",
            f"{each.size:,}",
            ", ".join(each.dtypes),
            bytes_text(each.nbytes),
        ]
        for each in networks
    ]
    return heads, rows


def blocks_table(network: Network) -> Table:
    """A row for each block and, below it, one for each kind of module in it."""
    heads = ["modules", "count", "tensors of each", "dtype", "weights", "share"]
    return heads, [row for block in blocks_of(network) for row in _block_rows(block, max(network.size, 1))]


def differences_table(differences: Sequence[Difference]) -> Table:
    """The differences of two networks, with names folded."""
    rows = [
        [kind, printable(modules.pattern + leaf), f"{modules.number:,}", _text_of(shape), _text_of(other_shape)]
        for kind in KINDS
        for modules in fold({each.name: each[2:] for each in differences if each.kind == kind})
        for leaf, (shape, other_shape) in modules.tensors
    ]
    return ["difference", "tensors", "count", "shape", "in the other"], rows


def targets_table(matrices: Iterable[Matrix]) -> Table:
    """The chosen matrices, with names folded."""
    specs = {f"{each.module}.weight": (each.rows, each.columns) for each in matrices}
    found = [(each, each.tensors[0][1]) for each in fold(specs)]
    rows = [
        [printable(each.pattern), f"{each.number:,}", _text_of(shape), f"{each.number * prod(shape):,}"]
        for each, shape in found
    ]
    return ["matrices", "count", "shape of each", "weights"], rows


def keys_rows(networks: Iterable[Network]) -> Rows:
    """A row for each tensor; a shape is JSON."""
    rows = [
        [network.name, file.name, key, entry.dtype, _json(entry.shape), entry.size, entry.nbytes]
        for network in networks
        for file in network.files
        for key, entry in file.tensors.items()
        if key in network.tensors
    ]
    return ["network", "file", "key", "dtype", "shape", "weights", "bytes"], rows


def shapes_rows(networks: Iterable[Network]) -> Rows:
    """A row for each kind of tensor, with the pattern of its names; `count` is the number of such tensors."""
    return ["network", "block", "modules", "count", "tensor", "dtype", "shape", "weights"], [*_shapes(networks)]


def summary_rows(networks: Iterable[Network]) -> Rows:
    """A row for each network."""
    heads = ["network", "expert", "files", "tensors", "weights", "bytes", "dtypes"]
    rows = [
        [each.name, each.expert, len(each.files), len(each.tensors), each.size, each.nbytes, " ".join(each.dtypes)]
        for each in networks
    ]
    return heads, rows


def parity_rows(parities: Iterable[Parity]) -> Rows:
    """A row for each difference."""
    heads = ["network", "other", "difference", "key", "other_key", "shape", "other_shape"]
    rows = [
        [one.network, one.other, each.kind, each.name, each.other_name, _json(each.shape), _json(each.other_shape)]
        for one in parities
        for each in one.differences
    ]
    return heads, rows


def targets_rows(targets: Mapping[str, Sequence[Matrix]]) -> Rows:
    """A row for each matrix."""
    return ["network", "module", "rows", "columns"], [
        [name, *each] for name, found in targets.items() for each in found
    ]


def facts(inspection: Inspection) -> dict[str, Any]:
    """The inspection as JSON values, without its single tensors."""
    return {
        "source": inspection.source,
        "networks": [_facts_of(each) for each in inspection.networks],
        "alike": [[each.name for each in group] for group in inspection.alike()],
        "pickles": [*inspection.pickles],
        "against": inspection.against,
        "parity": [
            {
                "network": each.network,
                "other": each.other,
                "equal": each.equal,
                "renamed": each.renamed,
                "other_dtypes": each.other_dtypes,
                **{kind: len(each.of_kind(kind)) for kind in KINDS},
            }
            for each in inspection.parities
        ],
        "targets": None
        if inspection.targets is None
        else {name: [each._asdict() for each in found] for name, found in inspection.targets.items()},
    }


def _facts_of(network: Network) -> dict[str, Any]:
    return {
        "name": network.name,
        "expert": network.expert,
        "tensors": len(network.tensors),
        "weights": network.size,
        "bytes": network.nbytes,
        "dtypes": dict(network.dtypes),
        "prefix": wrapper_of(network.tensors),
        "blocks": [{"name": each.name, "count": each.number, "weights": each.size} for each in blocks_of(network)],
        "files": [
            {
                "name": each.name,
                "bytes": each.size,
                "header_bytes": each.header_size,
                "metadata": {name: shortened(text) for name, text in each.metadata.items()},
            }
            for each in network.files
        ],
        "notes": [*network.notes],
    }


def _block_rows(block: Block, whole: int) -> Iterator[list[str]]:
    """The row of a block, and one for each kind of module in it; one row in all, if that is one module."""
    if len(block.modules) == 1 and block.number == block.modules[0].number:
        yield _row(block.modules[0].pattern, block.modules[0], whole)
        return
    share = f"{100 * block.size / whole:.1f} %"
    yield [printable(block.name), f"{block.number:,}", "", "", f"{block.size:,}", share]
    for modules in block.modules:
        yield _row("  " + modules.pattern.removeprefix(block.name).lstrip("./"), modules, whole)


def _row(name: str, modules: FoldedModules, whole: int) -> list[str]:
    tensors = [f"{leaf.lstrip('./')} {_text_of(shape)}".strip() for leaf, (shape, _) in modules.tensors]
    dtypes = dict.fromkeys(dtype for _, (_, dtype) in modules.tensors)
    size = size_of(modules)
    share = f"{100 * size / whole:.1f} %"
    cells = [name, f"{modules.number:,}", ", ".join(tensors), ", ".join(dtypes), f"{size:,}", share]
    return [printable(cell) for cell in cells]


def _shapes(networks: Iterable[Network]) -> Iterator[list[Any]]:
    for network in networks:
        for block in blocks_of(network):
            for modules in block.modules:
                for leaf, (shape, dtype) in modules.tensors:
                    size = modules.number * prod(shape)
                    name = leaf.lstrip("./")
                    yield [network.name, block.name, modules.pattern, modules.number, name, dtype, _json(shape), size]


def _text_of(shape: Sequence[int] | None) -> str:
    """A shape as people write it."""
    return "–" if shape is None else "×".join(map(str, shape)) or "scalar"


def _json(shape: Sequence[int] | None) -> str | None:
    return None if shape is None else json.dumps([*shape])
