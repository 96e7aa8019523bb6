"""Copies of the buffers and the extra state of a network, from which they are restored exactly."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _ModuleBuffers(NamedTuple):
    """The buffers of one module: the tensors by name, their copies, names that are not persistent, extra state."""

    module: nn.Module
    objects: dict[str, Tensor | None]
    copies: dict[str, Tensor]
    not_persistent: set[str]
    extra_state: Any


class SavedBuffers:
    """The buffers of a network, such as running statistics, and the extra state of its modules, at one moment.

    Buffers are matched by module and name, because a forward pass can add, replace, remove or resize them: a cache that
    grows, for example. `restore` puts the same tensor objects in their places and writes their values.

    Args:
        model: the network. It must keep its modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [_saved(module) for module in model.modules()]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the buffers and the extra state."""
        for module, objects, copies, not_persistent, extra_state in self._modules:
            if _identities(module._buffers) != _identities(objects):
                module._buffers.clear()
                module._buffers.update(objects)
                module._non_persistent_buffers_set = set(not_persistent)
            for name, values in copies.items():
                _overwrite(objects[name], values)
            if extra_state is not None:
                module.set_extra_state(copy.deepcopy(extra_state))


def _saved(module: nn.Module) -> _ModuleBuffers:
    objects = dict(module._buffers)
    copies = {name: buffer.detach().clone() for name, buffer in objects.items() if buffer is not None}
    return _ModuleBuffers(module, objects, copies, set(module._non_persistent_buffers_set), _extra_state(module))


def _identities(buffers: Mapping[str, Tensor | None]) -> list[tuple[str, int]]:
    return [(name, id(buffer)) for name, buffer in buffers.items()]


def _extra_state(module: nn.Module) -> Any:
    """A copy of what `get_extra_state` returns; None if the module does not define it."""
    defined = type(module).get_extra_state is not nn.Module.get_extra_state
    return copy.deepcopy(module.get_extra_state()) if defined else None


def _overwrite(buffer: Any, values: Tensor) -> None:
    if buffer.shape != values.shape:
        buffer.resize_(values.shape)
    buffer.copy_(values)
