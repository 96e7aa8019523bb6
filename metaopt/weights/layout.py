"""Which weights a flat vector holds: names, shapes, dtypes and offsets of everything that is trainable."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import LayoutMismatch


@dataclass(frozen=True)
class WeightTensor:
    """One trainable tensor inside a flat vector."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The trainable weights of a network as one flat vector, in the order in which the network names them.

    It covers exactly the parameters with `requires_grad=True`: a whole network, a low-rank adapter and a grown
    branch are the same thing to everything that works on flat weights. A tensor with two names counts once.
    """

    tensors: tuple[WeightTensor, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """The layout of a network's trainable weights.

        Raises:
            LayoutMismatch: the network has none.
        """
        tensors = tuple(
            WeightTensor(name, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
            for name, parameter in trainable(model)
        )
        if not tensors:
            raise LayoutMismatch(f"{type(model).__name__} has no trainable weights; set requires_grad on some of them")
        return cls(tensors)

    @cached_property
    def size(self) -> int:
        """How many weights the flat vector holds."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the flat vector."""
        return tuple(accumulate((tensor.size for tensor in self.tensors), initial=0))[:-1]

    def flatten(
        self, weights: Mapping[str, Tensor], out: Float[Tensor, " weights"] | None = None
    ) -> Float[Tensor, " weights"]:
        """Put named tensors one after another into a float32 vector.

        Args:
            out: the vector to write to; a new one unless given.
        Raises:
            LayoutMismatch: a tensor is missing or has another shape.
        """
        flat = torch.empty(self.size) if out is None else out
        for tensor, piece in zip(self.tensors, self.split(flat), strict=True):
            if tensor.name not in weights:
                raise LayoutMismatch(f"no tensor named {tensor.name!r}; the layout expects {_describe(self)}")
            value = weights[tensor.name]
            if tuple(value.shape) != tensor.shape:
                raise LayoutMismatch(f"{tensor.name} has shape {tuple(value.shape)}; expected {tensor.shape}")
            piece.copy_(value.detach().reshape(-1))
        return flat

    def unflatten(self, flat: Float[Tensor, "*batch weights"]) -> dict[str, Tensor]:
        """Name the pieces of a flat vector: views of it, with their shapes, still float32.

        Raises:
            LayoutMismatch: the vector has another number of weights.
        """
        batch = flat.shape[:-1]
        return {
            tensor.name: piece.reshape((*batch, *tensor.shape))
            for tensor, piece in zip(self.tensors, self.split(flat), strict=True)
        }

    def split(self, flat: Float[Tensor, "*batch weights"]) -> Iterator[Tensor]:
        """The pieces of a flat vector, tensor by tensor, as views.

        Raises:
            LayoutMismatch: the vector has another number of weights.
        """
        self.check_size(flat)
        return iter(flat.split([tensor.size for tensor in self.tensors], dim=-1))

    def check_size(self, flat: Tensor) -> None:
        """Refuse a flat vector of another length.

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
            LayoutMismatch: the network has other weights; it is then unchanged.
        """
        self.check_model(model)
        for (_, parameter), piece in zip(trainable(model), self.split(flat), strict=True):
            parameter.copy_(piece.reshape(parameter.shape))

    def check_model(self, model: nn.Module) -> None:
        """Refuse a network whose trainable weights are not those of this layout.

        Raises:
            LayoutMismatch: a name, a shape or the order differs.
        """
        ours = [(tensor.name, tensor.shape) for tensor in self.tensors]
        theirs = [(name, tuple(parameter.shape)) for name, parameter in trainable(model)]
        if ours != theirs:
            differing = next((pair for pair in theirs if pair not in ours), None) or next(
                (pair for pair in ours if pair not in theirs), "the order"
            )
            raise LayoutMismatch(
                f"{type(model).__name__} does not have the weights of this layout (first difference: {differing}); "
                f"expected {_describe(self)}. Build it with the configuration that the weights were recorded with"
            )

    def to_list(self) -> list[Any]:
        """Plain values for JSON; `from_list` gives an equal layout back."""
        return [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]

    @classmethod
    def from_list(cls, values: Any) -> Self:
        """Rebuild a layout from what `to_list` gave, trusting nothing.

        Raises:
            LayoutMismatch: the values do not describe a layout.
        """
        try:
            tensors = tuple(WeightTensor(str(name), tuple(map(int, shape)), str(kind)) for name, shape, kind in values)
        except (TypeError, ValueError) as error:
            raise LayoutMismatch(f"not a layout: expected [name, shape, dtype] entries, got {values!r:.200}") from error
        if not tensors or any(not _can_exist(tensor) for tensor in tensors):
            raise LayoutMismatch(f"not a layout: a tensor without weights or of an unknown dtype in {values!r:.200}")
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise LayoutMismatch(f"not a layout: a name stands twice in {values!r:.200}")
        return cls(tensors)


def _can_exist(tensor: WeightTensor) -> bool:
    """Whether a described tensor can exist: positive sizes and a floating-point dtype of PyTorch."""
    dtype = getattr(torch, tensor.dtype, None)
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point and all(size > 0 for size in tensor.shape)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The space of a network: its parameters that require a gradient, each once, in the network's order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _describe(layout: Layout) -> str:
    first = ", ".join(f"{tensor.name}{list(tensor.shape)}" for tensor in layout.tensors[:3])
    more = ", …" if len(layout.tensors) > 3 else ""
    return f"{layout.size:,} weights in {len(layout.tensors)} tensors ({first}{more})"


def is_finite(weights: Tensor) -> bool:
    """Whether no value is infinite or NaN; needs no memory beside floating-point tensors, however large they are."""
    if weights.is_floating_point() and weights.numel():
        weights = torch.stack(weights.aminmax())  # NaN is an extreme, too; many times quicker than to judge each value
    return bool(torch.isfinite(weights).all())
