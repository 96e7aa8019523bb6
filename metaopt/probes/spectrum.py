"""The probe `spectrum`."""

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..tasks import Batch, Task
from .base import Probe, ProbeResult, Row
from .matrices import ChangedMatrix, by_kind, changed_matrices, has_matrices
from .running import column, floats, present, ratio
from .weight_norms import NO_MATRICES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 5  # kinds of layers in the figure


class Spectrum(Probe):
    """Singular values of the change of each matrix: the largest, stable rank and effective rank; spectral norms.

    With σ₁ ≥ σ₂ ≥ … of a change: stable rank Σσᵢ² / σ₁²; effective rank exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σσⱼ (Roy and
    Vetterli 2007).
    """

    how_to_read = """The ranks say in how many directions a matrix has moved: 1 is a single direction, and the smaller
side of the matrix the most. A stable rank far below the effective one means that few directions dominate a long tail.
A change that a LoRA adapter of rank r could have made has at most r singular values above 0. `spectral_ratio` is the
largest singular value of W after over that before: matrices above 1 stretch their inputs further than before."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs matrices."""
        return None if has_matrices(model) else NO_MATRICES

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Singular values of all matrices; the values are means over matrices, and the extremes."""
        rows: list[Row] = []
        drawn: dict[str, list[float]] = {}
        for each in changed_matrices(before, after):
            values = torch.linalg.svdvals(each.change)
            rows.append(_row(each, values))
            if each.kind not in drawn and len(drawn) < _DRAWN:
                drawn[each.kind] = floats(values)
        moved = [row for row in rows if row["largest"]]
        ratios = column(rows, "spectral_ratio") or [1.0]
        named = {
            "largest": max(column(rows, "largest")),
            "stable_rank": _mean(column(moved, "stable_rank")),
            "effective_rank": _mean(column(moved, "effective_rank")),
            "smallest_spectral_ratio": min(ratios),
            "spectral_ratio": fmean(ratios),
            "largest_spectral_ratio": max(ratios),
        }
        figures = {"singular-values": partial(_figure, drawn)} if moved else {}
        return ProbeResult(present(named), rows, [_of_kind(*each) for each in by_kind(rows).items()], figures)


def _row(each: ChangedMatrix, values: Float[Tensor, " rank"]) -> Row:
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    largest = values[0]
    safe = largest.square().clamp(min=torch.finfo(values.dtype).tiny)
    entropy = torch.special.entr(shares).sum()
    spectral = [torch.linalg.svdvals(matrix)[0] for matrix in (each.before, each.after)]
    found = torch.stack([largest, values.square().sum() / safe, entropy.exp(), *spectral])
    top, stable, effective, first, second = floats(found)
    return {
        **each.labels,
        "most": len(values),
        "largest": top,
        "stable_rank": stable if top else 0.0,
        "effective_rank": effective if top else 0.0,
        "spectral_before": first,
        "spectral_after": second,
        "spectral_ratio": ratio(second, first),
    }


def _mean(values: list[float]) -> float:
    return fmean(values) if values else 0.0


def _of_kind(kind: str, rows: list[Row]) -> Row:
    """Means over the matrices of a kind."""
    names = ("largest", "stable_rank", "effective_rank", "spectral_before", "spectral_after", "spectral_ratio")
    means = {name: fmean(found) if (found := column(rows, name)) else None for name in names}
    return {"kind": kind, "matrices": len(rows), "most": rows[0]["most"], **means}


def _figure(drawn: dict[str, list[float]]) -> "Figure":
    from ..figures import line_chart, plain_log

    longest = max(map(len, drawn.values()))
    shares = {kind: [value / values[0] for value in values] for kind, values in drawn.items() if values[0]}
    series = [
        {kind: values[place] for kind, values in shares.items() if place < len(values) and values[place] > 1e-6}
        for place in range(longest)
    ]
    figure = line_chart(
        "Singular values of the changes",
        "Relative to the largest one, of the first matrix of each kind of layer; a steep line is a change in few "
        "directions",
        "number of the singular value",
        "σ / σ₁",
        [place + 1 for place in range(longest)],
        series,
    )
    plain_log(figure.subfigs[1].axes[0], "y")
    return figure
