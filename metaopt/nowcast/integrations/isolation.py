"""Copies of a module that share its weights: user code runs on them, and nothing that it does reaches the training."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

from ...core.errors import InvalidConfig
from ..statistics import Replay

Copied = TypeVar("Copied")


def copy_sharing_weights(model: nn.Module) -> nn.Module:
    """A copy of a module with the same parameters, and with its own buffers, attributes and mode.

    Forward hooks are removed, except those of PyTorch itself, such as of `spectral_norm`: a hook that records outputs
    would also record those of the guard.

    Raises:
        InvalidConfig: the module contains something that cannot be copied.
    """
    copied = copy_of(model, {id(parameter): parameter for parameter in model.parameters()})
    for module in copied.modules():
        _keep_hooks_of_pytorch(module)
    return copied


class ReplayOnCopies(Replay):
    """Runs passes of a training again on a copy of the network, for its BatchNorm statistics."""

    def network(self, model: nn.Module) -> nn.Module:
        """A copy that shares the weights."""
        return copy_sharing_weights(model)


def copy_of(value: Copied, shared: Mapping[int, Any] | None = None) -> Copied:
    """A deep copy that shares data sets and data loaders. Copied tensors have no gradient history.

    Args:
        value: what to copy.
        shared: what takes the place of an object, by its `id`.
    Raises:
        InvalidConfig: something in it cannot be copied.
    """
    memo = {**(shared or {}), **_data(value)}
    try:
        with _CopiesWithoutHistory():
            return copy.deepcopy(value, memo)
    except Exception as error:  # whatever the __deepcopy__ or __reduce__ of user code raises
        raise InvalidConfig(
            f"the guard of nowcasts runs on a copy of {type(value).__name__}, which cannot be made: {error}. Give "
            "guard=…, a function that returns the losses of held-out examples"
        ) from error


def _data(value: Any) -> dict[int, Any]:
    owners = value.modules() if isinstance(value, nn.Module) else [value]
    held = [each for owner in owners for each in _elements(getattr(owner, "__dict__", owner))]
    return {id(each): each for each in held if isinstance(each, Dataset | DataLoader)}


def _elements(value: Any) -> Iterator[Any]:
    """A value, or what containers contain, at every depth."""
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _elements(each)
    else:
        yield value


class _CopiesWithoutHistory(TorchFunctionMode):
    """Lets tensors that are results of a computation be copied, such as losses in a list; PyTorch refuses that."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _keep_hooks_of_pytorch(module: nn.Module) -> None:
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for number, hook in list(hooks.items()):
            if not type(hook).__module__.startswith("torch."):
                del hooks[number]
