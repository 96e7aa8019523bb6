"""SOAP with a share of the current gradient, which evolution over whole trainings found."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .matrix import Group, Matrix, MatrixOptimizer, State, is_matrix

_MAX_DIMENSION = 1024  # of a preconditioner; a larger dimension is not rotated

Matrices = Float[Tensor, "*batch rows columns"]
Bases = Float[Tensor, "*batch dim dim"]


class LearnedSOAP(MatrixOptimizer):
    """SOAP that adds the current gradient to the momentum; its numbers are learned.

        import torch
        from metaopt.optimizers import LearnedSOAP

        model = torch.nn.Linear(3, 2)
        optimizer = LearnedSOAP(model.parameters(), lr=3e-3)

    A matrix is updated in the eigenbases Q₁, Q₂ of the decayed sums of G Gᵀ and Gᵀ G (Vyas et al. 2024,
    arXiv:2409.11321), where ′ marks a matrix in these bases, X′ = Q₁ᵀ X Q₂:

        M ← β₁ M + (1 − β₁) G,   N = M + κ G,   V ← β₂ V + (1 − β₂) G′²
        W ← W − η Q₁ (N′ / (√V + ε)) Q₂ᵀ

    with M and V corrected for their start. Other parameters are updated without bases. The weights are noisy, since
    most of N is one gradient: evaluate an average of them, as `Nowcast` keeps one.

    The first step only measures. The bases follow by one power iteration every `period` steps.

    Args:
        momentum: β₁.
        gradient_weight: κ; 0 is SOAP (quasi-hyperbolic momentum, arXiv:1810.06801, has the same form).
        second_decay: β₂.
        basis_decay: decay of the sums of G Gᵀ and Gᵀ G.
        output_rate: factor of the learning rate of the output layer, which is the last matrix of the first group of
            parameters: pass them in the order of the network.
        period: steps between updates of the bases.
        eps: ε.
        weight_decay: λ of W ← (1 − η λ) W.
    Raises:
        InvalidConfig: an option is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        momentum: float = 0.95,
        gradient_weight: float = 1.2,
        second_decay: float = 0.95,
        basis_decay: float = 0.95,
        output_rate: float = 2.0,
        period: int = 10,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        unbounded = float("inf")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "gradient_weight": gradient_weight,
                "second_decay": second_decay,
                "basis_decay": basis_decay,
                "output_rate": output_rate,
                "period": period,
                "eps": eps,
                "weight_decay": weight_decay,
            },
            {
                "gradient_weight": (0.0, unbounded),
                "second_decay": (0.0, 1.0),
                "basis_decay": (0.0, 1.0),
                "output_rate": (0.0, unbounded),
                "period": (1, unbounded),
                "eps": (0.0, 1.0),
                "weight_decay": (0.0, unbounded),
            },
        )

    def largest_state(self) -> int:
        """The number of values of the largest basis [count]."""
        matrices = (p for group in self.param_groups for p in group["params"] if is_matrix(p))
        return max((size**2 for p in matrices for size in (len(p), p[0].numel()) if size <= _MAX_DIMENSION), default=0)

    def _update(self, parameter: Tensor, group: Group) -> None:
        if parameter is self._output():
            group = {**group, "lr": group["lr"] * group["output_rate"]}
        super()._update(parameter, group)

    def _output(self) -> Tensor | None:
        """The weights of the output layer; None without matrices."""
        backwards = (p for group in self.param_groups for p in reversed(group["params"]))
        return next(filter(is_matrix, backwards), None)

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """The change of the formula of the class."""
        return change_in_bases(gradient, state, group) - group["lr"] * group["weight_decay"] * weights

    def change_of_other(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        """The same without bases and without weight decay."""
        return change_by_elements(gradient, state, group)


def change_in_bases(gradient: Matrices, state: State, numbers: Mapping[str, Any]) -> Matrices:
    """The change of a matrix, or of a batch of matrices.

    Args:
        state: its state, which is updated; empty at the first step.
        numbers: options of `LearnedSOAP` by name; for a batch, each may be a tensor [batch, 1, 1].
    """
    if not state:
        _start(gradient, state)
        _follow(gradient, state, numbers["basis_decay"])
        return torch.zeros_like(gradient)
    numerator = _numerator(gradient, state, numbers)
    size = _size(_rotated(gradient, state), state, numbers)
    change = -numbers["lr"] * _rotated_back(_rotated(numerator, state) / size, state)
    state["updates"] += 1
    _follow(gradient, state, numbers["basis_decay"], turn=state["updates"] % numbers["period"] == 0)
    return change


def change_by_elements(gradient: Tensor, state: State, numbers: Mapping[str, Any]) -> Tensor:
    """The change of a parameter that is not a matrix; arguments as for `change_in_bases`."""
    if not state:
        _start(gradient, state)
        return torch.zeros_like(gradient)
    change = -numbers["lr"] * _numerator(gradient, state, numbers) / _size(gradient, state, numbers)
    state["updates"] += 1
    return change


def _start(gradient: Tensor, state: State) -> None:
    state.update(first=torch.zeros_like(gradient), second=torch.zeros_like(gradient), updates=0)


def _numerator(gradient: Tensor, state: State, numbers: Mapping[str, Any]) -> Tensor:
    """N: the momentum, corrected for its start, and a share of the gradient."""
    decay = numbers["momentum"]
    momentum = state["first"].lerp_(gradient, 1 - decay) / (1 - decay ** (state["updates"] + 1))
    return momentum + numbers["gradient_weight"] * gradient


def _size(gradient: Tensor, state: State, numbers: Mapping[str, Any]) -> Tensor:
    """√V + ε, with V corrected for its start."""
    decay = numbers["second_decay"]
    second = state["second"].lerp_(gradient.square(), 1 - decay) / (1 - decay ** (state["updates"] + 1))
    return second.sqrt_() + numbers["eps"]


def _rotated(matrix: Matrices, state: State) -> Matrices:
    """Q₁ᵀ X Q₂."""
    matrix = state["left"].mT @ matrix if "left" in state else matrix
    return matrix @ state["right"] if "right" in state else matrix


def _rotated_back(matrix: Matrices, state: State) -> Matrices:
    """Q₁ X Q₂ᵀ."""
    matrix = state["left"] @ matrix if "left" in state else matrix
    return matrix @ state["right"].mT if "right" in state else matrix


def _follow(gradient: Matrices, state: State, decay: Any, *, turn: bool = False) -> None:
    """Include a gradient in the sums whose eigenbases are used.

    Args:
        decay: decay of the sums.
        turn: whether the bases follow the sums.
    """
    for side, matrix in (("left", gradient), ("right", gradient.mT)):
        if matrix.shape[-2] > _MAX_DIMENSION:
            continue
        product, name = matrix @ matrix.mT, f"{side}_sum"
        if side not in state:
            state[name] = product * (1 - decay)
            state[side] = _stored(torch.linalg.eigh(state[name].float())[1].flip(-1), gradient.dtype)
            continue
        state[name].lerp_(product, 1 - decay)
        if turn:
            state[side], order = _power_iteration(state[name], state[side])
            order = order.unsqueeze(-1) if side == "left" else order.unsqueeze(-2)
            state["second"] = state["second"].take_along_dim(order, -2 if side == "left" else -1)


def _power_iteration(matrix: Bases, basis: Bases) -> tuple[Bases, Tensor]:
    """The next estimate of the eigenvectors, the largest eigenvalue first, and the order of the old ones."""
    product = matrix @ basis
    order = (basis * product).sum(-2).argsort(dim=-1, descending=True)
    ordered = product.take_along_dim(order.unsqueeze(-2), -1)
    return _stored(torch.linalg.qr(ordered.float())[0], basis.dtype), order


def _stored(basis: Bases, dtype: torch.dtype) -> Bases:
    """A basis in the memory format that a checkpoint restores, since products round differently in another one."""
    return basis.to(dtype).contiguous()
