"""Deep momentum gradient descent (DMGD): momentum in a small network instead of a matrix."""

from collections.abc import Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ..core.rng import generator
from .matrix import Group, Matrix, MatrixOptimizer, State, is_matrix, unit


class DMGD(MatrixOptimizer):
    """Momentum whose memory is an MLP of one hidden layer: W ← W + η ‖g‖ m(k) / ‖m(k)‖, with keys k of the gradient g.

        import torch
        from metaopt.optimizers import DMGD

        model = torch.nn.Linear(3, 2)
        optimizer = DMGD(model.parameters(), lr=0.1)

    The keys are the rows of g, divided by their root mean square norm. The memory is m(k) = W₂ tanh(W₁ k). Before each
    change, it learns the value −k of each key k by a step of gradient descent on a regression:

        W₁ ← W₁ − ν ∇₁,   W₂ ← β W₂ − ν ∇₂,   ∇ the gradient of ½ Σ ‖m(k) + k‖²

    where ν is the learning rate of the memory, divided by ‖HᵀH‖ for the hidden activations H. So m(k) is about −k for
    gradients like those so far: directions that the memory has not learned are left out. W₂ is zero at first, and the
    first change is a descent.

    Reference: Behrouz et al. 2025, arXiv:2512.24695, Eq. 23 of the conference version.

    Departs: printed is the value 1 with the objective of a dot product, ⟨m(k), 1⟩. Its gradient for W₂ is H 1ᵀ, so each
    row of a change is a multiple of the vector of ones, whatever the gradient is: that is no descent. Keys are
    normalised, and the size of the gradient returns in the change, so learning rates are those of gradient descent.

    Args:
        momentum: momentum of parameters that are not matrices.
        decay: β.
        memory_lr: learning rate of the memory; below 2, where it is stable.
        hidden: width of the hidden layer of each memory, which has 2 · hidden · columns weights per matrix.
        seed: random seed of W₁.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        momentum: float = 0.0,
        decay: float = 0.99,
        memory_lr: float = 1.5,
        hidden: int = 64,
        seed: int = 0,
    ) -> None:
        unbounded = float("inf")
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "decay": decay, "memory_lr": memory_lr, "hidden": hidden, "seed": seed},
            {"decay": (0.0, 1.0), "memory_lr": (0.0, 2.0), "hidden": (1, unbounded), "seed": (0, unbounded)},
        )

    def largest_state(self) -> int:
        """The weights of the largest layer of a memory [count]."""
        groups = ((group["hidden"], group["params"]) for group in self.param_groups)
        return max(
            (hidden * each[0].numel() for hidden, params in groups for each in params if is_matrix(each)), default=0
        )

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """η ‖g‖ m(k) / ‖m(k)‖, after the memory has learned from k."""
        rows, columns = gradient.shape
        if "first" not in state:
            state["first"] = self._first_weights(columns, gradient, group)
            state["second"] = gradient.new_zeros(group["hidden"], columns)
        keys = unit(gradient) * sqrt(rows)  # rows of a norm of about 1
        self._learn(keys, state, group)
        memory = torch.tanh(keys @ state["first"]) @ state["second"]
        return group["lr"] * gradient.norm() * unit(memory)

    def _learn(self, keys: Tensor, state: State, group: Group) -> None:
        """A step of normalised gradient descent of the memory's regression."""
        hidden = torch.tanh(keys @ state["first"])
        error = hidden @ state["second"] + keys
        size = (hidden.mT @ hidden).norm() + torch.finfo(keys.dtype).eps
        rate = group["memory_lr"] / size
        of_first = keys.mT @ ((error @ state["second"].mT) * (1 - hidden.square()))
        state["second"].mul_(group["decay"]).sub_(rate * hidden.mT @ error)
        state["first"].sub_(rate * of_first)

    def _first_weights(self, columns: int, like: Tensor, group: Group) -> Tensor:
        number = len(self.state)
        drawn = torch.randn(columns, group["hidden"], generator=generator(group["seed"], number))
        return drawn.to(like)
