"""Where the snapshots of a history are kept, and how they are copied there while the training goes on."""

import torch
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of a history by name."""


class Memory:
    """The memory of a history: by default that of the weights, in float32.

    A copy from a CUDA device to main memory runs in a stream of its own, to pinned memory: neither the host nor the
    training waits for it. `wait` has to be called before the host uses the copies.

    Args:
        device: device of the weights.
        kept_on: where the snapshots are kept; `device` by default.
        dtype: precision of the snapshots: `float32` or `bfloat16`.
    Raises:
        InvalidConfig: there is no such device or precision.
    """

    def __init__(self, device: torch.device, kept_on: str | torch.device | None = None, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise InvalidConfig(f"history_dtype is {shown(dtype)}; expected one of {', '.join(DTYPES)}")
        try:
            self._kept_on = device if kept_on is None else torch.empty(0, device=kept_on).device
        except (AssertionError, RuntimeError, TypeError) as error:
            raise InvalidConfig(
                f"history_device is {shown(kept_on)}; expected a device such as 'cpu', or None for that of the weights"
            ) from error
        self.device, self._dtype = device, DTYPES[dtype]
        self._beside = device.type == "cuda" and self._kept_on.type == "cpu" and torch.cuda.is_available()
        self._stream: torch.cuda.Stream | None = None

    @property
    def is_direct(self) -> bool:
        """Whether weights can be written to the snapshots without a copy between them."""
        return self._kept_on == self.device and self._dtype is torch.float32

    def new_row(self, size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for one snapshot.

        Args:
            size: number of weights [count].
            dtype: that of the history by default.
        """
        return torch.empty(size, dtype=dtype or self._dtype, device=self._kept_on, pin_memory=self._beside)

    def staging(self, size: int) -> Tensor:
        """Memory for one snapshot on the device of the weights, from where it is copied."""
        return torch.empty(size, device=self.device)

    def copy(self, snapshot: Tensor, rows: list[Tensor]) -> None:
        """Copy a snapshot to its rows, after the operations that the training has started so far."""
        if not self._beside:
            for row in rows:
                row.copy_(snapshot)
            return
        self._stream = self._stream or torch.cuda.Stream(self.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for row in rows:
                row.copy_(snapshot, non_blocking=True)
        snapshot.record_stream(self._stream)  # its memory is not used again before the copy ends

    def wait(self) -> None:
        """Wait until all copies are complete."""
        if self._stream is not None:
            self._stream.synchronize()
