"""Taps: named module outputs of a network that functions can read or replace through forward hooks.

The output of every layer with a known size is a tap. A network adds taps, or states a better kind for a layer, with a
method `taps()`. Networks need no other change, because a tap is always the output of a module.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..core.errors import UnknownName
from ..core.registry import suggest
from ..core.text import shown

Places = dict[str, tuple[str, int, int]]
"""Result of a network's own `taps()`: module path → kind, size, and the output dimension that has this size."""

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
"""The attribute of a layer that is the size of its output, and the dimension of that size."""

_OPAQUE = (nn.MultiheadAttention,)
"""Modules that use the weights of their children without calling them, so that hooks on the children never run."""


@dataclass(frozen=True)
class Tap:
    """The output of one module of a network.

    Args:
        name: path of the module ("blocks.0.attention").
        kind: "attention", "memory", "mlp", "block" or "layer".
        size: channels, or embedding width.
        position: index among the taps of the network, from 0, in the order of the forward pass.
        dim: the output dimension that has this size.
    """

    name: str
    kind: str
    size: int
    position: int
    dim: int = -1


def taps(model: nn.Module, inputs: Any = None) -> list[Tap]:
    """All taps of a network in the order of its forward pass.

        import torch
        from metaopt import get_target_model
        from metaopt.targets import read_taps, tapped, taps

        model, tokens = get_target_model("GPT", n_layer=2), torch.zeros(1, 8, dtype=torch.long)
        names = [tap.name for tap in taps(model) if tap.kind == "attention"]
        outputs = read_taps(model, tokens, names)  # name → [1, 8, 128]
        with tapped(model, {name: torch.zeros_like for name in names}):  # ablate attention
            logits = model(tokens)

    Args:
        inputs: example inputs for a forward pass that determines the order; taps that it does not reach are left out.
            Without inputs, the order is that in which the modules are defined, children before their parents.
    """
    places = dict(_places(model))
    order = [name for name in _children_first(model) if name in places]
    if inputs is not None:
        order = list(read_taps(model, inputs, order))
    found = [(name, *places[name]) for name in order]
    return [Tap(name, kind, size, position, dim) for position, (name, kind, size, dim) in enumerate(found)]


@contextmanager
def tapped(model: nn.Module, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Apply functions to taps in all forward passes of the block.

    Args:
        functions: by tap name; each maps the module output to the tensor that replaces it. If a module returns several
            tensors, such as attention outputs and weights, the function applies to the first.
    Raises:
        UnknownName: the network has no such tap; the message lists the nearest names.
    """
    check_taps(model, functions)
    with ExitStack() as hooks:
        for name, function in functions.items():
            hooks.enter_context(model.get_submodule(name).register_forward_hook(_hook(function)))
        yield


def read_taps(model: nn.Module, inputs: Any, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors at some taps, or at all, in the order of a forward pass.

    Taps that the pass does not reach are missing. Of a module that runs several times, the first output is read.

    Raises:
        UnknownName: the network has no such tap; the message lists the nearest names.
    """
    read: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[Tensor], Tensor]:
        return lambda tensor: read.setdefault(name, tensor)

    wanted = [tap.name for tap in taps(model)] if names is None else names
    with tapped(model, {name: reader(name) for name in wanted}):
        model(inputs)
    return read


def check_taps(model: nn.Module, names: Iterable[str]) -> None:
    """Check that a network has these taps.

    Raises:
        UnknownName: the first that it lacks; the message lists the nearest names.
    """
    known = [tap.name for tap in taps(model)]
    for name in names:
        if name not in known:
            raise UnknownName(f"{type(model).__name__} has no tap {shown(name)}: {suggest(name, known)}")


def transformer_places(blocks: Iterable[str], attention: str, mlp: str, width: int) -> Places:
    """The taps of transformer blocks: each attention, each MLP, each block.

    Args:
        blocks: paths of the blocks.
        attention, mlp: names of these modules within a block.
        width: embedding width.
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
    """Layers of known size, then the results of `taps()` methods, which override them; outer modules override inner."""
    for name, module in model.named_modules():
        for kind, (attribute, dim) in _SIZES.items():
            if isinstance(module, kind):
                size = getattr(module, attribute)
                yield name, ("layer", size[-1] if isinstance(size, tuple) else size, dim)
    for name, module in reversed(list(model.named_modules())):
        own = getattr(module, "taps", None)
        for path, tap in (own() if callable(own) else {}).items():
            yield f"{name}.{path}" if name else path, tap


def _children_first(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The paths of all modules whose hooks run, children before their parents."""
    if not isinstance(module, _OPAQUE):
        for name, child in module.named_children():
            yield from _children_first(child, f"{prefix}{name}.")
    yield prefix.removesuffix(".")


def _hook(function: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (function(output[0]), *output[1:]) if isinstance(output, tuple) else function(output)

    return hook
