"""Places between the layers of a network, where something can be attached or read.

Every layer of a known output size is such a place. A network can name more, or give a layer a better kind, with
a method `taps()`; each place is the output of a module, so that any network has them without a change of its code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..core.errors import UnknownName
from ..core.registry import suggest

Places = dict[str, tuple[str, int, int]]
"""What a network's own `taps()` says: the path of a module, its kind, its size, the dimension of that size."""

_SIZES: Mapping[type[nn.Module], tuple[str, int]] = {
    nn.Conv1d: ("out_channels", 1),
    nn.Conv2d: ("out_channels", 1),
    nn.Conv3d: ("out_channels", 1),
    nn.BatchNorm1d: ("num_features", 1),
    nn.BatchNorm2d: ("num_features", 1),
    nn.BatchNorm3d: ("num_features", 1),
    nn.GroupNorm: ("num_channels", 1),
    nn.Linear: ("out_features", -1),
    nn.Embedding: ("embedding_dim", -1),
    nn.LayerNorm: ("normalized_shape", -1),
    nn.RMSNorm: ("normalized_shape", -1),
    nn.MultiheadAttention: ("embed_dim", -1),
}
"""Which attribute of a layer is the size of its output, and along which dimension."""

_OPAQUE = (nn.MultiheadAttention,)
"""Modules that use the weights of their parts without calling them: a hook on a part would never run."""


@dataclass(frozen=True)
class Tap:
    """A place in a network: the output of one of its modules.

    Args:
        name: the path of the module ("blocks.0.attention").
        kind: "attention", "mlp", "block" or "layer".
        size: channels, or width of the embedding.
        position: its order among the network's places, from 0, as they are reached.
        dim: the dimension of the output that has this size.
    """

    name: str
    kind: str
    size: int
    position: int
    dim: int = -1


def taps(model: nn.Module, inputs: Any = None) -> list[Tap]:
    """All places of a network, in the order in which it reaches them.

    Args:
        inputs: an example to learn the order from; places that it does not reach are left out. Without one, modules
            count as called in the order in which they are defined, parts before the whole, as ours are.
    """
    places = dict(_places(model))
    order = [name for name in _inside_out(model) if name in places]
    if inputs is not None:
        order = list(read_taps(model, inputs, order))
    found = [(name, *places[name]) for name in order]
    return [Tap(name, kind, size, position, dim) for position, (name, kind, size, dim) in enumerate(found)]


@contextmanager
def tapped(model: nn.Module, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let functions take part in a network's forward passes, each at a place.

    Args:
        functions: by the name of a place; each gets the tensor there and returns the one to go on with. Where a
            module answers with several tensors (attention and its weights), it is the first.
    Raises:
        UnknownName: the network has no such place; the message lists the nearest names.
    """
    check_taps(model, functions)
    with ExitStack() as hooks:
        for name, function in functions.items():
            hooks.enter_context(model.get_submodule(name).register_forward_hook(_hook(function)))
        yield


def read_taps(model: nn.Module, inputs: Any, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors at some places, or at all, in a forward pass, in the order in which it reaches them.

    Places that it does not reach are absent; of those that it reaches several times, the first tensor counts.

    Raises:
        UnknownName: the network has no such place; the message lists the nearest names.
    """
    read: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[Tensor], Tensor]:
        return lambda tensor: read.setdefault(name, tensor)

    wanted = [tap.name for tap in taps(model)] if names is None else names
    with tapped(model, {name: reader(name) for name in wanted}):
        model(inputs)
    return read


def check_taps(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse places that a network does not have.

    Raises:
        UnknownName: the first of them; the message lists the nearest names.
    """
    known = [tap.name for tap in taps(model)]
    for name in names:
        if name not in known:
            raise UnknownName(f"{type(model).__name__} has no tap {name!r}: {suggest(name, known)}")


def transformer_places(blocks: Iterable[str], attention: str, mlp: str, width: int) -> Places:
    """The places of transformer blocks: after each attention, after each MLP, after the block.

    Args:
        blocks: the paths of the blocks.
        attention, mlp: what these parts are called inside a block.
        width: the width of the embedding.
    """
    places: Places = {}
    for block in blocks:
        places |= {
            f"{block}.{attention}": ("attention", width, -1),
            f"{block}.{mlp}": ("mlp", width, -1),
            block: ("block", width, -1),
        }
    return places


def _places(model: nn.Module) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Layers of known size first, then what the network and its parts say of themselves, which counts more."""
    for name, module in model.named_modules():
        for kind, (attribute, dim) in _SIZES.items():
            if isinstance(module, kind):
                size = getattr(module, attribute)
                yield name, ("layer", size[-1] if isinstance(size, tuple) else size, dim)
    for name, module in reversed(list(model.named_modules())):
        own = getattr(module, "taps", None)
        for place, what in (own() if callable(own) else {}).items():
            yield f"{name}.{place}" if name else place, what


def _inside_out(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The paths of all modules that are called, parts before the whole."""
    if not isinstance(module, _OPAQUE):
        for name, child in module.named_children():
            yield from _inside_out(child, f"{prefix}{name}.")
    yield prefix.removesuffix(".")


def _hook(function: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (function(output[0]), *output[1:]) if isinstance(output, tuple) else function(output)

    return hook
