"""Momentum whose output is orthogonalised: Muon as a linear memory, and Multi-scale Momentum Muon (M3)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown
from .matrix import Group, Matrix, MatrixOptimizer, State, adam, momentum

_COEFFICIENTS = (3.4445, -4.775, 2.0315)  # Jordan et al. 2024: the largest slope at zero
_EPSILON = 1e-7


def orthogonalised(matrix: Matrix, iterations: int = 5) -> Matrix:
    """A matrix of about the same singular vectors whose singular values are about one, by Newton–Schulz iteration.

    Singular values end between 0.7 and 1.2, apart from those that are below a hundredth of the norm. Zero remains zero.
    The iteration is that of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), in the matrix's precision.
    """
    first, second, third = _COEFFICIENTS
    is_tall = len(matrix) > matrix.shape[1]
    result = matrix.mT if is_tall else matrix
    result = result / result.norm().clamp(min=_EPSILON)
    for _ in range(iterations):
        gram = result @ result.mT
        result = first * result + (second * gram + third * gram @ gram) @ result
    return result.mT if is_tall else result


class MuonMemory(MatrixOptimizer):
    """Muon, written as a linear memory of gradients with a nonlinear output: W ← W + σ(m).

        import torch
        from metaopt.optimizers import MuonMemory

        model = torch.nn.Linear(3, 2)
        optimizer = MuonMemory(model.parameters(), lr=0.02)

    The memory m ← μ m + (1 − μ) g is linear, and σ is Newton–Schulz (Behrouz et al. 2025, arXiv:2512.24695, Eq. 24 of
    the conference version). The change is −η √max(1, rows / columns) σ(m), as in `torch.optim.Muon`, to which it is
    equal but for the precision of σ. `torch.optim.Muon` takes matrices only and is faster; this class shows the
    equivalence, and also takes other parameters.

    Args:
        nesterov: whether the output is that of the memory after one more update with the gradient.
        weight_decay: λ of W ← (1 − η λ) W before the change.
        iterations: iterations of Newton–Schulz [count].
        adjust_lr_fn: as in `torch.optim.Muon`: `original`, or `match_rms_adamw` for the change −0.2 η √max(rows,
            columns) σ(m), whose size suits learning rates of Adam (arXiv:2502.16982).
        others: the rule for parameters that are not matrices, `momentum` or `adam`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        iterations: int = 5,
        adjust_lr_fn: str = "original",
        others: str = "momentum",
    ) -> None:
        for name, value, choices in (("adjust_lr_fn", adjust_lr_fn, _RATES), ("others", others, _OTHERS)):
            if value not in choices:
                raise InvalidConfig(f"{name} is {shown(value)}; expected {' or '.join(choices)}")
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        rules = {"nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn, "others": others}
        super().__init__(params, {**numbers, **rules}, {"weight_decay": (0.0, float("inf")), "iterations": (1, 100)})

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """−η √max(1, rows / columns) σ(m) − η λ W, or with the other factor of σ."""
        memory = average(gradient, state, "memory", group["momentum"])
        output = gradient.lerp(memory, group["momentum"]) if group["nesterov"] else memory
        change = -_RATES[group["adjust_lr_fn"]](gradient, group) * orthogonalised(output, group["iterations"])
        return change - group["lr"] * group["weight_decay"] * weights

    def change_of_other(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        """The change by momentum or Adam."""
        return _OTHERS[group["others"]](gradient, state, group)


class M3(MatrixOptimizer):
    """Multi-scale Momentum Muon: two orthogonalised memories of gradients, of which one is updated every few steps.

        import torch
        from metaopt.optimizers import M3

        model = torch.nn.Linear(3, 2)
        optimizer = M3(model.parameters(), lr=0.02, period=10)

    With gradients g, a fast memory m₁ and a slow memory m₂ (Behrouz et al. 2025, arXiv:2512.24695, Algorithm 1):

        each step:           m₁ ← β₁ m₁ + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        every period steps:  m₂ ← β₃ m₂ + (1 − β₃) · mean of the gradients since the last update
        W ← W − η √max(1, rows / columns) (σ(m₁) + α σ(m₂)) ⊙ s,   s = 1 / (√v + ε · mean √v), over its mean

    Departs: printed are sums without decay, which never forget. Also printed is the division by √v itself: since σ does
    not depend on the size of gradients, changes would then grow as gradients shrink; here s has the mean 1.

    Args:
        momentum: β₁.
        second_decay: β₂.
        slow_decay: β₃.
        slow_weight: α.
        period: steps between updates of the slow memory.
        iterations: iterations of Newton–Schulz [count].
        eps: ε.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        momentum: float = 0.9,
        second_decay: float = 0.999,
        slow_decay: float = 0.9,
        slow_weight: float = 0.5,
        period: int = 10,
        iterations: int = 5,
        eps: float = 1e-8,
    ) -> None:
        unbounded = float("inf")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "second_decay": second_decay,
                "slow_decay": slow_decay,
                "slow_weight": slow_weight,
                "period": period,
                "iterations": iterations,
                "eps": eps,
            },
            {
                "second_decay": (0.0, 1.0),
                "slow_decay": (0.0, 1.0),
                "slow_weight": (0.0, unbounded),
                "period": (1, unbounded),
                "iterations": (1, 100),
                "eps": (0.0, 1.0),
            },
        )

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """The change of the formula of the class."""
        state["steps"] = state.get("steps", 0) + 1
        fast = average(gradient, state, "fast", group["momentum"])
        size = average(gradient.square(), state, "second_moment", group["second_decay"]).sqrt()
        direction = orthogonalised(fast, group["iterations"])
        direction = direction + group["slow_weight"] * self._slow(gradient, state, group)
        scale = 1 / (size + group["eps"] * size.mean() + torch.finfo(size.dtype).tiny)
        return -_rate(gradient, group) * direction * (scale / scale.mean())

    def _slow(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        """The orthogonalised slow memory, updated every `period` steps."""
        if "slow" not in state:
            state.update({name: torch.zeros_like(gradient) for name in ("slow", "slow_output", "sum")})
        state["sum"] += gradient
        if state["steps"] % group["period"] == 0:
            average(state["sum"] / group["period"], state, "slow", group["slow_decay"])
            state["slow_output"].copy_(orthogonalised(state["slow"], group["iterations"]))
            state["sum"].zero_()
        output: Tensor = state["slow_output"]
        return output


def average(value: Tensor, state: State, name: str, decay: float) -> Tensor:
    """A moving average, updated in the state; it starts from zero."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    memory: Tensor = state[name]
    return memory.lerp_(value, 1 - decay)


def _rate(gradient: Matrix, group: Group) -> float:
    """The learning rate of an orthogonalised change: η √max(1, rows / columns)."""
    rows, columns = gradient.shape
    rate: float = group["lr"] * max(1, rows / columns) ** 0.5
    return rate


def _rate_of_adam(gradient: Matrix, group: Group) -> float:
    """The learning rate of changes about as large as those of Adam: 0.2 η √max(rows, columns)."""
    rate: float = 0.2 * group["lr"] * max(gradient.shape) ** 0.5
    return rate


_RATES = {"original": _rate, "match_rms_adamw": _rate_of_adam}
_OTHERS = {"momentum": momentum, "adam": adam}
