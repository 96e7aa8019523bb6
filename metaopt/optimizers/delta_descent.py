"""Delta gradient descent: a step of regression from the inputs of a layer to the gradients of its outputs."""

from collections.abc import Iterable
from typing import Any

import torch

from .matrix import Group, Matrix, MatrixOptimizer, State, unit


class DeltaGradientDescent(MatrixOptimizer):
    """Gradient descent that forgets by the delta rule: W ← W (I − δ η' K) − η' g, with η' = η / (1 + η).

        import torch
        from metaopt.optimizers import DeltaGradientDescent

        model = torch.nn.Linear(3, 2)
        optimizer = DeltaGradientDescent(model.parameters(), lr=0.1)

    Gradient descent stores the map from the inputs x of a layer to the negative gradients of its outputs with the
    objective of a dot product. With that of regression, what W returns for the present inputs decays as well (Behrouz
    et al. 2025, arXiv:2512.24695, Eqs 56 and 57; 28 and 29 of the conference version, which have no η' in the decay).

    K is x xᵀ / ‖x‖² in the paper, for one input. Here it is gᵀ g / ‖g‖², which is the same for one input and needs no
    access to the layer; for a batch it is the average over directions of inputs that the gradient contains.

    Departs: δ is an option, and smaller than in the paper, where it is 1: the weights at which the gradient is zero are
    no fixed point, but smaller weights, at which gradient and decay balance. With δ = 1 a perceptron on digits stays at
    three times the loss of momentum.

    Args:
        momentum: μ of parameters that are not matrices.
        delta: δ, the strength of the decay; 1 is printed, 0 is gradient descent with the rate η'.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, momentum: float = 0.0, delta: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "delta": delta}, {"delta": (0.0, 2.0)})

    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """−δ η' W K − η' g."""
        rate, key = group["lr"] / (1 + group["lr"]), unit(gradient)
        return -rate * (group["delta"] * torch.linalg.multi_dot([weights, key.mT, key]) + gradient)
