"""Networks that a file describes: built without memory first, and compared with the tensors in the file.

A configuration in a file can ask for any size. A network on PyTorch's meta device has shapes and no memory, and its
construction ends when it has more tensors than the file, so that a wrong configuration costs neither memory nor time.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.rng import isolated
from ..core.text import shortened, shown
from .layout import is_finite
from .listed import ListedTensor

Network = TypeVar("Network", bound=nn.Module)

_SPARE_TENSORS = 64  # that a constructor may make and replace, as for tied weights, beyond twice those in the file
_SPARE_BYTES = 2**28  # of buffers that are computed and not stored, such as masks
_SHARE_OF_MEMORY = 0.75  # that weights, gradients and states may take; activations take the rest
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a number of bytes, or "max"
_MOST_OPTIONS = 3  # in a message [count]


def build_as_listed(build: Callable[[], Network], listed: Mapping[str, Tensor | ListedTensor]) -> Network:
    """Build a network if its state has the names, shapes and kinds of dtypes of the listed tensors.

    Raises:
        LayoutMismatch: it has others; it was not built.
        Exception: whatever `build` raises for its configuration.
    """
    skeleton = build_on_meta(build, listed)
    if skeleton is not None:
        check_state(type(skeleton).__name__, skeleton.state_dict(), listed)
    return build()


def build_on_meta(build: Callable[[], Network], listed: Mapping[str, Tensor | ListedTensor]) -> Network | None:
    """Build a network on the meta device, with no more tensors and bytes than a file can explain.

    Returns: the network without memory; None if its construction needs values and so is impossible there.
    Raises:
        LayoutMismatch: it has many more tensors or bytes than the listed ones.
        Exception: whatever `build` raises for its configuration.
    """
    with _at_most(2 * len(listed) + _SPARE_TENSORS):
        network = _without_memory(build)
    if network is None:
        return None
    size = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    limit = 8 * sum(_bytes(tensor) for tensor in listed.values()) + _SPARE_BYTES  # the file may be narrower
    if size > limit:
        raise LayoutMismatch(f"it describes a network of {size:,} bytes; with the tensors listed, at most {limit:,}")
    return network


def check_memory(build: Callable[[], nn.Module], options: Mapping[str, Any], copies: int) -> None:
    """Check that this machine can train a network, before it is built.

    The network is built on the meta device, so that a size beyond the memory costs neither memory nor time.

        check_memory(lambda: get_target_model("MLP", widths=[10**7] * 2), {"widths": [10**7] * 2}, copies=2)  # raises

    Args:
        options: options of the network that the user gave, for the message.
        copies: number of tensors that a training holds for each weight, such as its gradient, itself included.
    Raises:
        InvalidConfig: the memory is too small; the message names the options to lower.
        Exception: whatever `build` raises for its configuration.
    """
    memory = memory_size()
    registered = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal registered
        registered += 0 if parameter is None else parameter.nbytes
        if copies * registered > _SHARE_OF_MEMORY * memory:
            raise InvalidConfig(
                f"the network has at least {registered / 2**30:.3g} GB of weights. Its training holds {copies} tensors "
                f"of that size, and its activations, which do not fit into the {memory / 2**30:.3g} GB of memory of "
                f"this machine: {_to_lower(options)}"
            )

    with isolated(), _on_registration(count):
        _without_memory(build)


def skeleton_of(build: Callable[[], Network]) -> Network:
    """A network for its names and shapes: without memory, unless its construction needs values. Random states are kept.

    Raises:
        Exception: whatever `build` raises for its configuration.
    """
    with isolated():
        network = _without_memory(build)
        return build() if network is None else network


def _to_lower(options: Mapping[str, Any]) -> str:
    """What to do about the size of a network: its options with numbers, the largest number first."""
    sizes = {name: max(_numbers(value), default=0) for name, value in options.items()}
    found = sorted((name for name in sizes if sizes[name] > 1), key=lambda name: -sizes[name])
    named = [f"{name} ({shown(options[name])})" for name in found[:_MOST_OPTIONS]]
    return f"lower {' or '.join(named)}" if named else "choose a smaller network"


def _numbers(value: Any) -> list[float]:
    parts = value if isinstance(value, list | tuple) else [value]
    return [part for part in parts if isinstance(part, int | float)]


def memory_size() -> int:
    """Main memory that this process may use [bytes]; without a limit where the system does not say."""
    sizes = [2**62]
    with suppress(AttributeError, OSError, ValueError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # the limit of a container
        sizes.append(int(_CONTAINER_LIMIT.read_text(encoding="ascii")))
    return min(sizes)


def _without_memory(build: Callable[[], Network]) -> Network | None:
    """Build a network on the meta device; None if its construction needs values and so is impossible there."""
    try:
        with torch.device("meta"), _NoRandomNumbers():
            return build()
    except NotImplementedError:  # of operations without an implementation for the meta device
        return None
    except RuntimeError as error:
        if "meta tensor" not in str(error):
            raise
        return None


def check_state(owner: str, state: Mapping[str, Any], found: Mapping[str, Tensor | ListedTensor]) -> None:
    """Check that tensors of a file have the names, shapes and kinds of dtypes of a network's state.

    Args:
        owner: the network, for messages.
    Raises:
        LayoutMismatch: they do not; the message has the first difference.
    """
    for name in [*state, *found]:
        if name not in state or name not in found:
            raise LayoutMismatch(f"{'the file' if name not in found else owner} has no {shown(name)}")
        expected, tensor = state[name], found[name]
        if not isinstance(expected, Tensor):  # extra state of a module
            continue
        if tuple(tensor.shape) != tuple(expected.shape):
            raise LayoutMismatch(
                f"{shortened(name)} has shape {tuple(tensor.shape)}, {owner} expects {tuple(expected.shape)}"
            )
        if _kind(tensor.dtype) != _kind(expected.dtype):
            raise LayoutMismatch(f"{shortened(name)} is {tensor.dtype}, {owner} expects {expected.dtype}")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check that all weights are finite.

    Raises:
        LayoutMismatch: one is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise LayoutMismatch(f"{shortened(name)} holds NaN or infinity; expected finite weights")


def _kind(dtype: torch.dtype) -> str:
    """The kind of number: values are copied between precisions, but not between kinds."""
    return "floating-point" if dtype.is_floating_point else "complex" if dtype.is_complex else str(dtype)


def _bytes(tensor: Tensor | ListedTensor) -> int:
    return int(torch.Size(tensor.shape).numel()) * tensor.dtype.itemsize


class _NoRandomNumbers(TorchFunctionMode):
    """Draws no random numbers: tensors stay as they are. The meta implementation takes a second to import."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, or `torch.empty`."""
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        if func not in (torch.randn, torch.rand):
            return func(*args, **kwargs)
        return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Let this thread register at most `count` parameters in modules during the block."""
    registered = 0

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal registered
        registered += parameter is not None
        if registered > count:
            raise LayoutMismatch(f"it describes a network of more than {count:,} tensors, the file lists fewer")

    with _on_registration(register):
        yield


@contextmanager
def _on_registration(call: Callable[[nn.Module, str, nn.Parameter | None], None]) -> Iterator[None]:
    """Call a function for each parameter that this thread registers in a module during the block."""
    thread = threading.get_ident()

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if threading.get_ident() == thread:
            call(module, name, parameter)

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()
