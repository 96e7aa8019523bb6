"""Copies of a network's tensors, as its snapshots store them."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..core.errors import Diverged, InvalidConfig
from ..core.registry import suggest
from ..weights.files import remove_file, unique_state, write_tensors
from ..weights.layout import Layout, is_finite
from .writer import BackgroundWriter

SNAPSHOT_DTYPES = ("float32", "bfloat16", "float16")
"""What trainable weights can be stored in; "float32" leaves them as they are."""


def storage_dtype(name: str) -> torch.dtype | None:
    """What weights of a wider dtype are converted to, by a name of `SNAPSHOT_DTYPES`; None for nothing.

    Raises:
        InvalidConfig: snapshots know no such dtype.
    """
    if name not in SNAPSHOT_DTYPES:
        raise InvalidConfig(f"the dtype of snapshots is {name!r}: {suggest(name, SNAPSHOT_DTYPES)}")
    return None if name == "float32" else getattr(torch, name)


def stored_copy(name: str, tensor: Tensor, dtype: torch.dtype | None, step: int) -> Tensor:
    """A tensor on the CPU, in memory of its own, converted where it is wider than `dtype`.

    Raises:
        Diverged: a value is not finite.
        InvalidConfig: a value is too large for `dtype`.
    """
    narrower = dtype is not None and tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize
    stored = tensor.to(dtype) if narrower else tensor  # before it leaves the device: there is less to move
    if not is_finite(stored):
        if not is_finite(tensor):
            raise Diverged(f"{name} is no longer finite at step {step}")
        other = "bfloat16" if dtype == torch.float16 else "float32"
        raise InvalidConfig(
            f"{name} holds {tensor.abs().max():.4g} at step {step}, more than {_name(dtype)} can; record the snapshots "
            f"in {other}"
        )
    return stored.to("cpu", copy=stored is tensor)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


SNAPSHOT, FROZEN = "snapshot", "frozen"
"""Kinds of file in a trajectory's folder."""

_SNAPSHOT_FILE = re.compile(r"step_([0-9]{8,})\.safetensors")


class Recorder:
    """Turns a network in training into a trajectory on disk.

    A snapshot holds the trainable weights and the persistent buffers; weights that are frozen stand once beside the
    snapshots. The files hold nothing of the time or tracking server of the run: the same training writes the
    same bytes.

    In a `with` block it copies the network and writes in the background; when the block is left, by an error too,
    everything recorded is on disk. Without the block it writes at once.

    Args:
        folder: the trajectory; made where missing.
        run: what was trained and how, as JSON, the same in every snapshot.
        layout: the trainable weights.
        segment: counts from zero; a network whose layout changes in training starts another one.
        dtype: one of `SNAPSHOT_DTYPES`, for trainable weights whose own dtype is wider.
        keep_last: how many snapshots to keep, the oldest going first; 0 for all [count].
    Raises:
        InvalidConfig: an unknown dtype, or a negative count.
    """

    def __init__(
        self,
        folder: Path,
        run: Mapping[str, Any],
        layout: Layout,
        segment: int = 0,
        *,
        dtype: str = "float32",
        keep_last: int = 0,
    ) -> None:
        if keep_last < 0:
            raise InvalidConfig(f"keep_last is {keep_last}; expected a number of snapshots, or 0 for all")
        self.folder = folder
        self.layout = layout
        self._run = dict(run)
        self._segment = segment
        self._dtype = storage_dtype(dtype)
        self._keep_last = keep_last
        self._trained = {tensor.name for tensor in layout.tensors}
        self._writer: BackgroundWriter | None = None

    def __enter__(self) -> Self:
        self._writer = BackgroundWriter().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(kind, error, trace)

    def record(
        self,
        model: nn.Module,
        step: int,
        epoch: int,
        losses: Mapping[str, float],
        weights: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Write one snapshot, replacing an older one of the same step.

        In the background at most two wait for the disk; then this waits, too.

        Args:
            model: the network as it is now.
            step: training time [optimizer steps].
            epoch: finished epochs [count].
            losses: by name; what is not known yet is left out.
            weights: recorded in place of the network's own trainable weights, by name.
        Returns: where it stands, or will stand once it is written.
        Raises:
            Diverged: a weight is not finite; nothing is written.
            InvalidConfig: a weight is too large for the dtype of the snapshots; nothing is written.
            LayoutMismatch: the network has other trainable weights.
            StorageError: the disk is full or not writable, now or for a snapshot before this one; snapshots written
                before are untouched.
        """
        self.layout.check_model(model)
        if self._writer is not None:
            self._writer.wait_for_room()
        frozen, changing = _divide(model)
        copies = self._copies({**changing, **(weights or {})}, step)
        self._write_frozen(frozen)
        facts = {
            "layout": self.layout.to_list(),
            "segment": self._segment,
            "step": step,
            "epoch": epoch,
            "losses": dict(losses),
            "run": self._run,
        }
        path = self.folder / f"step_{step:08d}.safetensors"
        write = partial(self._write, path, copies, facts)
        write() if self._writer is None else self._writer.submit(write)
        return path

    def flush(self) -> None:
        """Wait until everything that was recorded is on disk.

        Raises:
            StorageError: something could not be written.
        """
        if self._writer is not None:
            self._writer.flush()

    def _copies(self, changing: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """What the snapshot is made of, while the network trains on; buffers keep their dtype."""
        return {
            name: stored_copy(name, tensor, self._dtype if name in self._trained else None, step)
            for name, tensor in changing.items()
        }

    def _write_frozen(self, frozen: dict[str, Tensor]) -> None:
        """Write what does not change, once and at once: it needs no copy."""
        path = self.folder / f"{FROZEN}.safetensors"
        if frozen and not path.exists():
            write_tensors(path, frozen, FROZEN, {"run": self._run})

    def _write(self, path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        write_tensors(path, tensors, SNAPSHOT, facts)
        if self._keep_last:
            _remove_older(self.folder, facts["step"], self._keep_last)


def _divide(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The frozen weights, and everything else that a network keeps."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = unique_state(model)
    return (
        {name: tensor for name, tensor in state.items() if name in frozen},
        {name: tensor for name, tensor in state.items() if name not in frozen},
    )


def _remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove snapshots from before a step, so that with the one of that step `keep` are left.

    Later ones were left by a run that was killed after its last checkpoint; the resumed run replaces them.
    """
    paths = {int(match[1]): path for path in folder.iterdir() if (match := _SNAPSHOT_FILE.fullmatch(path.name))}
    older = sorted((each for each in paths if each < step), reverse=True)
    for each in older[keep - 1 :]:
        remove_file(paths[each])
