"""The probe `delta-budgets`."""

from math import hypot

import torch
from torch import nn

from ..adapters.budget import DeltaBudget
from ..adapters.lora import adapters_of
from ..tasks import Batch, Task
from .base import Probe, ProbeResult, Row
from .matrices import by_kind, changed_matrices, has_matrices, norms
from .running import column, floats, present, ratio
from .weight_norms import NO_MATRICES


class DeltaBudgets(Probe):
    """How far each matrix has moved relative to its size, ‖ΔW‖ / ‖W‖ in Frobenius norms, by kind of layer."""

    how_to_read = """`change` is ‖W after − W before‖ / ‖W before‖, for all matrices together; 0 is no change, and 1 a
change as large as the matrix. Fine-tuning usually stays below 0.1, training from random weights does not. For a matrix
with an adapter, `budget` is the share that its budget limits, ‖s B A‖ / ‖W‖ with the frozen W
(`metaopt.adapters.DeltaBudget`): it counts from the frozen matrix, and `change` from the network before."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs matrices."""
        return None if has_matrices(model) else NO_MATRICES

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Changes of all matrices; the values are that of all of them together, their mean and the largest."""
        budgets = [_budgets(before), _budgets(after)]
        rows: list[Row] = []
        for each in changed_matrices(before, after):
            norm, moved = floats(torch.stack(norms((each.before, each.change))))
            shares = [found.get(each.name.removesuffix(".weight")) for found in budgets]
            adapted = dict(zip(("budget_before", "budget_after"), shares, strict=True)) if any(budgets) else {}
            row = {"norm_before": norm, "norm_of_change": moved, "change": ratio(moved, norm) if moved else 0.0}
            rows.append({**each.labels, **row, **adapted})
        changes = column(rows, "change") or [0.0]
        values = {"change": _joint(rows), "mean_change": sum(changes) / len(changes), "largest_change": max(changes)}
        if any(budgets):
            values |= {f"largest_{name}": max(column(rows, name)) for name in ("budget_before", "budget_after")}
        return ProbeResult(present(values), rows, [_of_kind(*each) for each in by_kind(rows).items()])


def _budgets(model: nn.Module) -> dict[str, float]:
    """The share of each adapted matrix by the name of its module; none without adapters."""
    adapted = next(adapters_of(model), None) is not None
    return DeltaBudget(model, cap=None).shares() if adapted else {}


def _joint(rows: list[Row]) -> float | None:
    norm, moved = (hypot(*column(rows, name)) for name in ("norm_before", "norm_of_change"))
    return ratio(moved, norm) if moved else 0.0


def _of_kind(kind: str, rows: list[Row]) -> Row:
    changes = column(rows, "change")
    budgets = {}
    if "budget_after" in rows[0]:
        budgets = {"largest_budget": max(column(rows, "budget_after"), default=None)}
    return {
        "kind": kind,
        "matrices": len(rows),
        "change": _joint(rows),
        "smallest": min(changes, default=None),
        "largest": max(changes, default=None),
        **budgets,
    }
