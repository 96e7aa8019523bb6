"""What a training does in its forward passes: the autocast in force, and the last inputs of the network."""

import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.devices import device_of
from .model_state import unwrapped


class Autocast(NamedTuple):
    """Whether autocast was on in a forward pass, and its precision."""

    enabled: bool
    dtype: torch.dtype

    def on(self, device: torch.device) -> torch.autocast:
        """The same autocast, as a context manager."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.enabled, cache_enabled=self.enabled)


class Pass(NamedTuple):
    """The inputs of a forward pass, and the autocast in force."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    autocast: Autocast


class _Hook:
    """A forward hook that notes the inputs of training passes.

    Under `torch.compile` it is traced, so it only sets an attribute: reading one would compile the network again. The
    copy of a network gets a hook that does nothing.
    """

    def __init__(self, kind: str) -> None:
        self.last: tuple[tuple[Any, ...], dict[str, Any], bool, torch.dtype] | None = None
        self.is_compiled = False
        self._kind = kind

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            autocast = torch.is_autocast_enabled(self._kind), torch.get_autocast_dtype(self._kind)
            self.last = (arguments, keywords, *autocast)
            self.is_compiled = torch.compiler.is_compiling()

    def __reduce__(self) -> tuple[Any, ...]:
        return _no_hook, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _no_hook()


class TrainingPasses:
    """The last forward passes of a network in training mode with gradients, one per step of the optimizer.

    Args:
        model: the network, or a wrapper of `torch.compile` or `DistributedDataParallel` around it.
        kept: how many to keep [count]. Their inputs stay in memory, and are not copied.
        hooked: whether a hook on the network sees its inputs; otherwise `saw` has to be called.
    Attributes:
        recent: the passes that are kept, oldest first.
        autocast: that of the last pass; None before the first one.
    """

    def __init__(self, model: nn.Module, kept: int, *, hooked: bool = True) -> None:
        self.recent: deque[Pass] = deque(maxlen=kept)
        self.autocast: Autocast | None = None
        self._model = unwrapped(model)
        self._hook = _Hook(device_of(model).type)
        self._hooked = hooked
        self._unhook: weakref.finalize[Any, Any] | None = None
        self.watch()

    def watch(self) -> None:
        """Note the inputs of the passes from now on."""
        if self._hooked and (self._unhook is None or not self._unhook.alive):
            handle = self._model.register_forward_pre_hook(self._hook, with_kwargs=True)
            self._unhook = weakref.finalize(self, handle.remove)

    def rest(self) -> None:
        """Note no inputs until `watch`: a hook costs some time.

        A network that `torch.compile` has traced keeps the hook, because it would not see another one.
        """
        if self._unhook is not None and not self._hook.is_compiled:
            self._unhook()

    def saw(self, *inputs: Any) -> None:
        """Note the inputs of a pass that no hook sees."""
        self._hook.last = (inputs, {}, False, torch.float32)

    def note(self) -> bool:
        """Keep the last pass before a step of the optimizer; whether there was one since the step before."""
        if (last := self._hook.last) is None:
            return False
        self._hook.last = None
        arguments, keywords, enabled, dtype = last
        self.autocast = Autocast(enabled, dtype)
        if self.recent.maxlen:
            self.recent.append(Pass(_detached(arguments), _detached(keywords), self.autocast))
        return True

    def same_autocast(self) -> AbstractContextManager[Any]:
        """The autocast of the last pass, as a context manager; none before the first one."""
        return nullcontext() if self.autocast is None else self.autocast.on(device_of(self._model))


def _no_hook() -> Any:
    return _do_nothing


def _do_nothing(*arguments: Any, **keywords: Any) -> None:
    """Takes the place of the hook in copies of a network."""


def _detached(value: Any) -> Any:
    """Inputs without their gradient history, which would keep another network's activations in memory."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {name: _detached(part) for name, part in value.items()} if type(value) is dict else value
    return type(value)(map(_detached, value)) if type(value) in (list, tuple) else value
