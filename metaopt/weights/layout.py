"""Layouts: the names, shapes and dtypes of the trainable weights in a flat vector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..core.errors import LayoutMismatch
from ..core.text import shortened, shown
from .listed import ListedTensor
from .selection import check_trainable, trainable


@dataclass(frozen=True)
class WeightTensor:
    """One trainable tensor inside a flat vector."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of weights in the tensor."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The trainable weights of a network as one flat vector, in the order of `named_parameters`.

    A layout covers exactly the parameters with `requires_grad=True`: a whole network and a low-rank adapter are handled
    alike. A tensor with two names counts once.

        import torch
        from metaopt import Layout

        model = torch.nn.Linear(3, 2)
        layout = Layout.of(model)
        flat = layout.read(model)  # float32 [8]: weight, then bias
        layout.write(model, 0.5 * flat)
        layout.unflatten(flat)["bias"]  # a view of shape [2]
    """

    tensors: tuple[WeightTensor, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # computed once: every forecast looks a layout up
        return hash(self.tensors)

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """The layout of a network's trainable weights.

        Raises:
            LayoutMismatch: the network has no trainable weights, or one that cannot be recorded (`check_trainable`).
        """
        check_trainable(model)
        tensors = tuple(
            WeightTensor(name, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
            for name, parameter in trainable(model)
        )
        return cls(tensors)

    @cached_property
    def size(self) -> int:
        """Number of weights in the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Index of each tensor's first weight in the flat vector."""
        return tuple(accumulate((tensor.size for tensor in self.tensors), initial=0))[:-1]

    def flatten(
        self, weights: Mapping[str, Tensor], out: Float[Tensor, " weights"] | None = None
    ) -> Float[Tensor, " weights"]:
        """Concatenate named tensors into a float32 vector.

        Args:
            out: the vector to write to; by default a new one on the device of the first tensor.
        Raises:
            LayoutMismatch: a tensor is missing or has another shape.
        """
        self._check_shapes(weights)
        return self.join([weights[tensor.name] for tensor in self.tensors], out)

    @torch.no_grad()
    def join(
        self, tensors: Sequence[Tensor], out: Float[Tensor, " weights"] | None = None
    ) -> Float[Tensor, " weights"]:
        """Concatenate tensors in the order of the layout into a float32 vector: the inverse of `split`.

        Args:
            out: the vector to write to; by default a new one on the device of the first tensor.
        Raises:
            LayoutMismatch: `out` has another number of weights.
        """
        flat = torch.empty(self.size, device=tensors[0].device) if out is None else out
        torch._foreach_copy_(list(self.split(flat)), [tensor.reshape(-1) for tensor in tensors])
        return flat

    def unflatten(self, flat: Float[Tensor, "*batch weights"]) -> dict[str, Tensor]:
        """The tensors of a flat vector by name: float32 views of it.

        Raises:
            LayoutMismatch: the vector has another number of weights.
        """
        batch = flat.shape[:-1]
        return {
            tensor.name: piece.reshape((*batch, *tensor.shape))
            for tensor, piece in zip(self.tensors, self.split(flat), strict=True)
        }

    def split(self, flat: Float[Tensor, "*batch weights"]) -> Iterator[Tensor]:
        """Divide a flat vector into one-dimensional views, one per tensor.

        Raises:
            LayoutMismatch: the vector has another number of weights.
        """
        self.check_size(flat)
        return iter(flat.split([tensor.size for tensor in self.tensors], dim=-1))

    def check_size(self, flat: Tensor) -> None:
        """Check the length of a flat vector.

        Raises:
            LayoutMismatch: the vector has another number of weights.
        """
        if flat.shape[-1] != self.size:
            raise LayoutMismatch(f"got {flat.shape[-1]:,} weights; the layout has {self.size:,}: {_describe(self)}")

    def read(self, model: nn.Module) -> Float[Tensor, " weights"]:
        """Copy a network's trainable weights into a new float32 vector.

        Raises:
            LayoutMismatch: the network has other weights.
        """
        return self.flatten(dict(trainable(model)))

    @torch.no_grad()
    def write(self, model: nn.Module, flat: Float[Tensor, " weights"]) -> None:
        """Copy a flat vector into a network's trainable weights, in the network's own dtypes.

        Raises:
            LayoutMismatch: the network has other weights, which stay unchanged.
        """
        self.check_model(model)
        parameters: list[Tensor] = [parameter for _, parameter in trainable(model)]
        torch._foreach_copy_(parameters, list(self.unflatten(flat).values()))

    def check_tensors(self, tensors: Mapping[str, Tensor | ListedTensor]) -> None:
        """Check that there are tensors, such as those of a file, with the names and shapes of this layout.

        Their precision may differ: snapshots can be narrower, and running averages wider than the weights.

        Raises:
            LayoutMismatch: a tensor is missing, has another shape, or does not hold floating-point numbers.
        """
        self._check_shapes(tensors)
        for tensor in self.tensors:
            if not (dtype := tensors[tensor.name].dtype).is_floating_point:
                raise LayoutMismatch(f"{shortened(tensor.name)} is {dtype}; expected floating-point weights")

    def _check_shapes(self, tensors: Mapping[str, Tensor | ListedTensor]) -> None:
        for tensor in self.tensors:
            if tensor.name not in tensors:
                raise LayoutMismatch(f"no tensor named {shown(tensor.name)}; the layout expects {_describe(self)}")
            if (shape := tuple(tensors[tensor.name].shape)) != tensor.shape:
                raise LayoutMismatch(f"{shortened(tensor.name)} has shape {shape}; expected {tensor.shape}")

    def check_model(self, model: nn.Module) -> None:
        """Check that a network has the trainable weights of this layout.

        Raises:
            LayoutMismatch: a name, a shape or the order differs.
        """
        expected = [(tensor.name, tensor.shape) for tensor in self.tensors]
        found = [(name, tuple(parameter.shape)) for name, parameter in trainable(model)]
        if found != expected:
            differing = next((pair for pair in found if pair not in expected), None) or next(
                (pair for pair in expected if pair not in found), "the order"
            )
            raise LayoutMismatch(
                f"{type(model).__name__} does not have the weights of this layout (first difference: "
                f"{shown(differing)}); expected {_describe(self)}. Build it with the configuration that the weights "
                "were recorded with"
            )

    def to_list(self) -> list[Any]:
        """The layout as JSON values: [name, shape, dtype] per tensor."""
        return [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]

    @classmethod
    def from_list(cls, values: Any) -> Self:
        """Build a layout from untrusted values in the format of `to_list`.

        Raises:
            LayoutMismatch: the values do not describe a layout.
        """
        try:
            tensors = tuple(WeightTensor(name, tuple(shape), kind) for name, shape, kind in values)
            if not all(map(_is_described, tensors)):
                raise TypeError
        except (TypeError, ValueError) as error:
            raise LayoutMismatch(f"not a layout: expected [name, shape, dtype] entries, got {shown(values)}") from error
        if not tensors or any(not _can_exist(tensor) for tensor in tensors):
            raise LayoutMismatch(f"not a layout: a tensor without weights or of an unknown dtype in {shown(values)}")
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise LayoutMismatch(f"not a layout: a name occurs twice in {shown(values)}")
        return cls(tensors)


def _is_described(tensor: WeightTensor) -> bool:
    """Whether name, shape and dtype have the types that they need; values of a file can have any."""
    sizes = all(type(size) is int for size in tensor.shape)
    return isinstance(tensor.name, str) and isinstance(tensor.dtype, str) and sizes


def _can_exist(tensor: WeightTensor) -> bool:
    """Whether a described tensor can exist: positive sizes and a floating-point dtype of PyTorch."""
    dtype = getattr(torch, tensor.dtype, None)
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point and all(size > 0 for size in tensor.shape)


def _describe(layout: Layout) -> str:
    first = ", ".join(shortened(f"{tensor.name}{list(tensor.shape)}") for tensor in layout.tensors[:3])
    more = ", …" if len(layout.tensors) > 3 else ""
    return f"{layout.size:,} weights in {len(layout.tensors)} tensors ({first}{more})"


def is_finite(weights: Tensor) -> bool:
    """Whether no value is infinite or NaN; allocates no memory of the tensor's size where it is floating-point."""
    return bool(finite(weights))


def finite(weights: Tensor) -> Bool[Tensor, ""]:
    """`is_finite` as a tensor on the device of the weights, for which the host does not wait."""
    if weights.is_floating_point() and weights.numel():
        weights = torch.stack(weights.aminmax())  # propagates NaN; many times faster than isfinite of each value
    return torch.isfinite(weights).all()
