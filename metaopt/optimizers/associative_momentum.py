"""Momentum as an associative memory of gradients: preconditioned momentum and delta momentum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown
from .matrix import Group, Matrix, MatrixOptimizer, State, momentum, unit

PRECONDITIONERS = ("second_moment", "identity")


class PreconditionedMomentum(MatrixOptimizer):
    """Momentum of preconditioned gradients: m ← μ m − η P g, W ← W + m.

        import torch
        from metaopt.optimizers import PreconditionedMomentum

        model = torch.nn.Linear(3, 2)
        optimizer = PreconditionedMomentum(model.parameters(), lr=1e-3)

    The memory m maps a gradient to the value P with the objective of a dot product, ⟨m gᵀ, P⟩ (Behrouz et al. 2025,
    arXiv:2512.24695, Eqs 19 and 20 of the conference version).

    Args:
        preconditioner: `second_moment`: P = 1 / (√v + ε), with v the moving average of g², corrected for its start as
            in Adam; or `identity`, which is plain momentum.
        decay: decay of the average v.
        eps: ε.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        preconditioner: str = "second_moment",
        decay: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        if preconditioner not in PRECONDITIONERS:
            raise InvalidConfig(f"preconditioner is {shown(preconditioner)}; expected {' or '.join(PRECONDITIONERS)}")
        defaults = {"lr": lr, "momentum": momentum, "preconditioner": preconditioner, "decay": decay, "eps": eps}
        super().__init__(params, defaults, {"decay": (0.0, 1.0), "eps": (0.0, 1.0)})

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """μ m − η P g."""
        return self.change_of_other(gradient, state, group)

    def change_of_other(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        """μ m − η P g: the preconditioner is that of each weight, so any shape will do."""
        return momentum(self._preconditioned(gradient, state, group), state, group)

    def _preconditioned(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        if group["preconditioner"] == "identity":
            return gradient
        if "second_moment" not in state:
            state["second_moment"], state["updates"] = torch.zeros_like(gradient), 0
        state["updates"] += 1
        average = state["second_moment"].lerp_(gradient.square(), 1 - group["decay"])
        scale = (average / (1 - group["decay"] ** state["updates"])).sqrt_().add_(group["eps"])
        return gradient / scale


class DeltaMomentum(MatrixOptimizer):
    """Momentum that forgets by the delta rule: m ← m (μ I − δ kᵀ k) − η g with the unit key k = g / ‖g‖, W ← W + m.

        import torch
        from metaopt.optimizers import DeltaMomentum

        model = torch.nn.Linear(3, 2)
        optimizer = DeltaMomentum(model.parameters(), lr=0.1)

    The memory maps a gradient to its value by regression, ‖m kᵀ − P‖², instead of a dot product. What it remembers of
    the present gradient's directions is erased before the gradient is written; other directions are kept (Behrouz et
    al. 2025, arXiv:2512.24695, Eqs 21 and 22 of the conference version).

    Departs: printed is the raw key k = g. Then m grows by ‖g‖² − 1 per step where ‖g‖ > 1, and training diverges within
    a few steps. P is the identity.

    Args:
        delta: δ, the part of the present directions to erase; 0 is plain momentum.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, momentum: float = 0.9, delta: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "delta": delta}, {"delta": (0.0, 2.0)})

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """m (μ I − δ kᵀ k) − η g."""
        known = state.get("momentum")
        erased = None if known is None else torch.linalg.multi_dot([known, (key := unit(gradient)).mT, key])
        memory = momentum(gradient, state, group)
        return memory if erased is None else memory.sub_(erased, alpha=group["delta"])
