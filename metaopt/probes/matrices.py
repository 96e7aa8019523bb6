"""The matrices of two networks, and their kinds: matrices of equal shapes in layers whose names differ in numbers.

A matrix with a low-rank adapter is the frozen one and its change together, W + s B A.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..adapters.lora import LowRank, adapters_of, change_of
from ..weights.folded_names import fold, natural, pieces

Matrix = Float[Tensor, "rows columns"]


class ChangedMatrix(NamedTuple):
    """A matrix before and after a change: `before` and `after` in float32; of a convolution [outputs, all inputs]."""

    name: str
    kind: str
    before: Matrix
    after: Matrix

    @property
    def change(self) -> Matrix:
        """The matrix after the change minus that before it."""
        return self.after - self.before

    @property
    def labels(self) -> dict[str, str]:
        """The first columns of its row in a table."""
        return {"kind": self.kind, "matrix": self.name}


def changed_matrices(before: nn.Module, after: nn.Module) -> Iterator[ChangedMatrix]:
    """The matrices of both networks, one after the other, so that few are in memory at once.

    Vectors such as biases and the scales of norms are left out.
    """
    first, second = _matrices(before), _matrices(after)
    kinds = kinds_of({name: shape for name, (shape, _) in first.items()})
    for name, (_, read) in first.items():
        yield ChangedMatrix(name, kinds[name], read(), second[name][1]())


def has_matrices(model: nn.Module) -> bool:
    """Whether a network has any."""
    return bool(_matrices(model))


def kinds_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The kind of each tensor: the folded name of all tensors of its shape whose names differ only in numbers.

    `kinds_of({"blocks.0.q.weight": (4, 4), "blocks.1.q.weight": (4, 4)})` gives both the kind `blocks.0-1.q`.
    """
    groups: dict[Any, list[str]] = {}
    for name in sorted(shapes, key=natural):
        starred = tuple("#" if piece.lstrip("./").isdigit() else piece for piece in pieces(name))
        groups.setdefault((starred, shapes[name]), []).append(name)
    found: dict[str, str] = {}
    for names in groups.values():
        folded = fold({name: shapes[name] for name in names})
        kind = ", ".join(each.pattern + each.tensors[0][0].removesuffix(".weight") for each in folded)
        found |= dict.fromkeys(names, kind or names[0])
    return found


def by_kind(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows with a column `kind`, grouped by it."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["kind"], []).append(row)
    return groups


def norms(matrices: Iterable[Matrix]) -> list[Tensor]:
    """The Frobenius norm of each matrix, on its device."""
    return [torch.linalg.vector_norm(each) for each in matrices]


def _matrices(model: nn.Module) -> dict[str, tuple[tuple[int, ...], Callable[[], Matrix]]]:
    """The shape of each matrix, and what reads it."""
    found: dict[str, tuple[tuple[int, ...], Callable[[], Matrix]]] = {}
    adapted = {id(part): each for each in adapters_of(model) for part in (each.base, each.down, each.up)}
    for name, parameter in model.named_parameters():
        adapter = adapted.get(id(parameter))
        if adapter is not None:
            found[f"{adapter.module}.weight"] = (tuple(adapter.base.shape), partial(_adapted, adapter))
        elif parameter.ndim >= 2 and parameter.is_floating_point():
            found[name] = (tuple(parameter.shape), partial(_plain, parameter))
    return found


def _plain(parameter: nn.Parameter) -> Matrix:
    return parameter.detach().float().flatten(1)


def _adapted(adapter: LowRank) -> Matrix:
    return adapter.base.detach().float() + change_of(adapter).float()
