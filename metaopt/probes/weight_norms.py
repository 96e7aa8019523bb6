"""The probe `weight-norms`."""

from math import hypot

import torch
from torch import nn

from ..tasks import Batch, Task
from .base import Probe, ProbeResult, Row
from .matrices import by_kind, changed_matrices, has_matrices, norms
from .running import column, floats, present, ratio

NO_MATRICES = "it has no matrices"


class WeightNorms(Probe):
    """How much each matrix has grown or shrunk: Frobenius norms ‖W‖ before and after, by kind of layer."""

    how_to_read = """A `norm_ratio` of 1 is a matrix of unchanged size, which may still have turned: `delta-budgets`
measures that. Matrices that grow steadily, in one kind of layer only, are the usual first sign of a learning rate that
is too large there, or of a weight decay that is missing. Biases and the scales of norms are left out; a convolution is
a matrix with a row for each output channel."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs matrices."""
        return None if has_matrices(model) else NO_MATRICES

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Norms of all matrices; the values are those of all of them together, and the extremes."""
        rows: list[Row] = []
        for each in changed_matrices(before, after):
            first, second = floats(torch.stack(norms((each.before, each.after))))
            rows.append({**each.labels, "norm_before": first, "norm_after": second, "norm_ratio": ratio(second, first)})
        ratios = column(rows, "norm_ratio") or [1.0]
        first, second = (hypot(*column(rows, name)) for name in ("norm_before", "norm_after"))
        values = {"norm_before": first, "norm_after": second, "norm_ratio": ratio(second, first)}
        extremes = {"smallest_norm_ratio": min(ratios), "largest_norm_ratio": max(ratios)}
        return ProbeResult(present({**values, **extremes}), rows, [_of_kind(*each) for each in by_kind(rows).items()])


def _of_kind(kind: str, rows: list[Row]) -> Row:
    first, second = (hypot(*column(rows, name)) for name in ("norm_before", "norm_after"))
    ratios = column(rows, "norm_ratio")
    return {
        "kind": kind,
        "matrices": len(rows),
        "norm_before": first,
        "norm_after": second,
        "norm_ratio": ratio(second, first),
        "smallest": min(ratios, default=None),
        "largest": max(ratios, default=None),
    }
