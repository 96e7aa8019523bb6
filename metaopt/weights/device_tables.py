"""Index tables and features of a layout, kept on each device where they are used."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class DeviceTables:
    """Results that depend on a name and a device only; each is computed at its first use.

    A forecast thus neither computes them again nor copies them to the device again.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[Hashable, torch.device], Any] = {}

    def get(self, name: Hashable, device: torch.device, make: Callable[[], T]) -> T:
        """The kept result, or that of `make`."""
        key = (name, device)
        if key not in self._tables:
            with torch.inference_mode(False), torch.no_grad():  # tables outlive the mode that they are first used in
                self._tables[key] = make()
        return self._tables[key]
