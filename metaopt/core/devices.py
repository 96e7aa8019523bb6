"""Devices and threads: where a command computes.

Random numbers are drawn on the CPU and then moved: a random seed gives the same batches and the same initial weights on
every device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .config import Config, option
from .errors import InvalidConfig
from .text import shown

CPU = torch.device("cpu")

_AUTO = "auto"
_SMALL = 1_000_000
"""Number of weights below which the operations of a network are too short to be divided among threads."""

_MOST_THREADS = 1024
"""More than the cores of a machine; with very many, the OpenMP library ends the process."""


class ComputeConfig(Config):
    """Base class of the configurations of commands that compute: their device and their threads."""

    device: str = option(
        default=_AUTO,
        help="Device to compute on: cpu, or an accelerator such as cuda, cuda:1 or mps; auto is the accelerator if "
        "there is one, else the CPU.",
        changes_result=False,
    )
    threads: int = option(
        default=0,
        help="CPU threads of an operation [count]; 0 is one for small networks, else OMP_NUM_THREADS or all cores.",
        at_least=0,
        at_most=_MOST_THREADS,
        changes_result=False,
    )

    def __post_init__(self) -> None:
        """Check each value, and that the device can exist.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if self.device != _AUTO:
            _parse(self.device)


def find_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", "mps", …; or "auto" for the accelerator if there is one.

        from metaopt.core.devices import find_device

        find_device("cpu")  # device(type='cpu')

    Raises:
        InvalidConfig: this machine has no such device; the message lists those that it has.
    """
    accelerators = _accelerators()
    if name == _AUTO:
        return accelerators[_current_index()] if accelerators else CPU
    device = _parse(name)
    if device.type == "cpu":
        return CPU
    if ":" not in name and accelerators and accelerators[0].type == device.type:
        return accelerators[_current_index()]
    if device not in accelerators:
        present = ", ".join(map(str, [CPU, *accelerators]))
        raise InvalidConfig(
            f"device is {shown(name)}, but this installation of torch finds only {present}; give one of them, or auto"
        )
    return device


def device_name(device: torch.device) -> str:
    """The name of a device with that of its hardware where torch knows it, such as "cuda:0, NVIDIA H100"."""
    return f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def device_of(module: nn.Module, default: torch.device = CPU) -> torch.device:
    """The device of the parameters of a module; `default` if it has none."""
    return next((parameter.device for parameter in module.parameters()), default)


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A copy to CUDA goes through pinned memory, so that the CPU does not wait for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def threads_for(weights: int, threads: int = 0) -> Iterator[None]:
    """Use a suitable number of CPU threads while the block runs.

    The operations of small networks take microseconds. A second thread hardly shortens them, and where another process
    uses the cores, they take several times as long. So they run on one thread, unless the environment variable
    OMP_NUM_THREADS is set. The number depends on the size of the work and not on how busy the machine is, because sums
    depend on it in their last bits.

    Args:
        weights: number of weights that one operation handles, of all networks of a batch.
        threads: number to use; 0 to choose it.
    """
    before = torch.get_num_threads()
    if not threads:
        threads = 1 if weights < _SMALL and "OMP_NUM_THREADS" not in os.environ else before
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accelerators() -> list[torch.device]:
    """All devices of the machine's accelerator; empty if it has none."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [torch.device(kind.type, index) for index in range(torch.accelerator.device_count())] if kind else []


def _current_index() -> int:
    return torch.accelerator.current_device_index()


def _parse(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InvalidConfig(
            f"device is {shown(name)}; expected cpu, auto, or an accelerator such as cuda, cuda:1 or mps"
        ) from error
