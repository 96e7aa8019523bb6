"""Base class of the deep optimizers: a rule for matrices, and momentum for all other parameters."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown

Matrix = Float[Tensor, "rows columns"]
State = dict[str, Any]
Group = dict[str, Any]


class MatrixOptimizer(torch.optim.Optimizer):
    """Base class of optimizers that see the gradient of a matrix as a linear map.

    A parameter of two or more dimensions is a matrix [rows, columns]: the first dimension, and all others. Other
    parameters, and matrices of one row or one column, are updated by momentum: m ← μ m − η g, w ← w + m. States are
    tensors and numbers, so that a resumed training equals an uninterrupted one.

    Args:
        params: parameters or parameter groups.
        defaults: options of the groups; `lr` and `momentum` among them.
        bounds: the least and the exclusive upper bound of each option that is a number. If the least is an integer, so
            is the option.
    Raises:
        InvalidConfig: an option is not a finite number within its bounds.
    """

    def __init__(
        self, params: Iterable[Any], defaults: Mapping[str, Any], bounds: Mapping[str, tuple[float, float]]
    ) -> None:
        for name, (least, bound) in {"lr": (0.0, float("inf")), "momentum": (0.0, 1.0), **bounds}.items():
            value, kind = defaults[name], int if isinstance(least, int) else int | float | Tensor
            if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < bound:
                number = "an integer" if kind is int else "a number"
                raise InvalidConfig(f"{name} is {shown(value)}; expected {number} from {least:g} to below {bound:g}")
        super().__init__(params, dict(defaults))

    def largest_state(self) -> int:
        """The largest number of values in a tensor of the state; 0 if none is larger than its parameter [count]."""
        return 0

    @abstractmethod
    def change_of(self, gradient: Matrix, weights: Matrix, state: State, group: Group) -> Matrix:
        """The change of a matrix in this step.

        Args:
            gradient: its gradient.
            weights: its values before the step.
            state: the state of the parameter, of tensors and numbers; empty at the first step.
            group: options of its parameter group.
        """

    def change_of_other(self, gradient: Tensor, state: State, group: Group) -> Tensor:
        """The change of a parameter that is not a matrix in this step; by default momentum."""
        return momentum(gradient, state, group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step.

        Args:
            closure: computes the gradients again, and returns the loss.
        Raises:
            InvalidConfig: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: Group) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if gradient.is_sparse or gradient.is_complex():
            kind = "sparse" if gradient.is_sparse else "complex"
            raise InvalidConfig(f"{type(self).__name__} got a {kind} gradient; expected a dense one of real numbers")
        if is_matrix(parameter):
            matrix = gradient.flatten(1)
            change = self.change_of(matrix, parameter.detach().flatten(1), state, group)
            parameter.add_(change.view_as(parameter))
        else:
            parameter.add_(self.change_of_other(gradient, state, group))


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of at least two rows and two columns."""
    return parameter.ndim >= 2 and len(parameter) > 1 and parameter[0].numel() > 1


def momentum(gradient: Tensor, state: State, group: Group) -> Tensor:
    """Momentum, updated in the state: m ← μ m − η g."""
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(gradient)
    memory: Tensor = state["momentum"]
    return memory.mul_(group["momentum"]).sub_(group["lr"] * gradient)


def adam(gradient: Tensor, state: State, group: Group) -> Tensor:
    """The change by Adam with its default decays (arXiv:1412.6980)."""
    if "first" not in state:
        state.update(first=torch.zeros_like(gradient), second=torch.zeros_like(gradient), updates=0)
    state["updates"] += 1
    first = state["first"].lerp_(gradient, 0.1) / (1 - 0.9 ** state["updates"])
    second = state["second"].lerp_(gradient.square(), 0.001) / (1 - 0.999 ** state["updates"])
    return first.div_(second.sqrt_().add_(1e-8)).mul_(-group["lr"])


def unit(gradient: Tensor) -> Tensor:
    """A gradient divided by its Frobenius norm; zero remains zero."""
    return gradient / gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
