"""Records trajectories: writes snapshots of a network during its training, in the background."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..core.errors import Diverged, InvalidConfig
from ..core.registry import suggest
from ..core.text import shown
from ..weights.files import remove_file, write_tensors
from ..weights.layout import Layout, is_finite
from ..weights.model_files import unique_state
from .writer import BackgroundWriter

SNAPSHOT, FROZEN = "snapshot", "frozen"
"""Kinds of files in the folder of a trajectory."""

_SNAPSHOT_FILE = re.compile(r"step_([0-9]{8,})\.safetensors")

SNAPSHOT_DTYPES = ("float32", "bfloat16", "float16")
"""Precisions of stored weights; "float32" keeps the precision of the network."""


class Recorder:
    """Writes the trajectory of a network in training.

    A snapshot holds the trainable weights and the persistent buffers; frozen weights are stored once, beside the
    snapshots. The files are reproducible: the same training writes the same bytes.

    In a `with` block the recorder copies the network and writes in the background; on exit, also by an error, all
    snapshots are on disk. Without the block it writes synchronously.

        from pathlib import Path
        from torch import nn
        from metaopt import Layout
        from metaopt.trajectories import Recorder

        model = nn.Linear(3, 2)
        with Recorder(Path("trajectories/mine/seed_0"), {"seed": 0}, Layout.of(model)) as recorder:
            recorder.record(model, step=0, epoch=0, losses={"train_loss": 1.0})

    Args:
        folder: folder of the trajectory, created if missing.
        run: facts of the run as JSON values, repeated in every snapshot.
        layout: the trainable weights.
        segment: index from zero; a new segment starts when the network changes during training.
        growth: the growth seeds of the network, as `metaopt.growth.grow` takes them.
        dtype: one of `SNAPSHOT_DTYPES`, for trainable weights of higher precision.
        keep_last: number of snapshots to keep, the latest ones; 0 for all [count].
    Raises:
        InvalidConfig: the dtype is unknown, or `keep_last` is negative.
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
        growth: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if keep_last < 0:
            raise InvalidConfig(f"keep_last is {keep_last}; expected a number of snapshots, or 0 for all")
        self.folder = folder
        self._run = dict(run)
        self._dtype = _storage_dtype(dtype)
        self._keep_last = keep_last
        self._set_segment(segment, layout, growth)
        self._last: int | None = None  # step of the last snapshot
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
        """Write a snapshot, which replaces an older one of the same step.

        In the background at most two snapshots wait for the disk; a third blocks the call.

        Args:
            model: the network.
            step: training time [optimizer steps].
            epoch: finished epochs [count].
            losses: known losses, by name.
            weights: recorded instead of the network's own trainable weights, by name.
        Returns: the path of the snapshot, which may be written later.
        Raises:
            Diverged: a weight is not finite; nothing is written.
            InvalidConfig: a weight is too large for the dtype of the snapshots; nothing is written.
            LayoutMismatch: the network has other trainable weights.
            StorageError: the disk is full or not writable, for this or an earlier snapshot; older ones are kept.
        """
        self.layout.check_model(model)
        if self._writer is not None:
            self._writer.wait_for_room()
        frozen, changing = _divide(model)
        copies = self._copies({**changing, **(weights or {})}, step)
        self._write_frozen(frozen)
        facts = {
            "layout": self.layout.to_list(),
            "segment": self.segment,
            "step": step,
            "epoch": epoch,
            "losses": dict(losses),
            "run": self._run,
            **self._previous(step),
        }
        if self._growth:
            facts["growth"] = self._growth
        path = self.folder / f"step_{step:08d}.safetensors"
        write = partial(self._write, path, copies, facts)
        write() if self._writer is None else self._writer.submit(write)
        return path

    def start_segment(self, layout: Layout, growth: Sequence[Mapping[str, Any]]) -> None:
        """Start a segment: the network has other weights from the next snapshot on.

        Args:
            layout: the trainable weights.
            growth: the growth seeds of the network.
        """
        self._set_segment(self.segment + 1, layout, growth)

    def _set_segment(self, segment: int, layout: Layout, growth: Sequence[Mapping[str, Any]]) -> None:
        self.segment, self.layout = segment, layout
        self._growth = [dict(seed) for seed in growth]
        self._trained = {tensor.name for tensor in layout.tensors}

    def flush(self) -> None:
        """Wait until all snapshots are on disk.

        Raises:
            StorageError: a snapshot could not be written.
        """
        if self._writer is not None:
            self._writer.flush()

    def _previous(self, step: int) -> dict[str, int]:
        """The fact `previous` of a snapshot, by which readers notice that the one before it was removed."""
        last, self._last = self._last, step
        if last is None or last >= step:
            last = max((each for each in snapshot_files(self.folder) if each < step), default=None)
        return {} if last is None else {"previous": last}

    def _copies(self, changing: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """Copies of the tensors in the precision of the snapshots; buffers keep their dtype."""
        return {
            name: _stored_copy(name, tensor, self._dtype if name in self._trained else None, step)
            for name, tensor in changing.items()
        }

    def _write_frozen(self, frozen: dict[str, Tensor]) -> None:
        """Write the frozen weights once, synchronously, without a copy."""
        path = self.folder / f"{FROZEN}.safetensors"
        if frozen and not path.exists():
            write_tensors(path, frozen, FROZEN, {"run": self._run})

    def _write(self, path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        write_tensors(path, tensors, SNAPSHOT, facts)
        if self._keep_last:
            _remove_older(self.folder, facts["step"], self._keep_last)


def _divide(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The frozen weights, and the trainable weights with the persistent buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = unique_state(model)
    return (
        {name: tensor for name, tensor in state.items() if name in frozen},
        {name: tensor for name, tensor in state.items() if name not in frozen},
    )


def snapshot_files(folder: Path) -> dict[int, Path]:
    """The snapshots in a folder by step, in no order; empty if there is no such folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(match[1]): path for path in paths if (match := _SNAPSHOT_FILE.fullmatch(path.name))}


def _remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove the oldest snapshots so that `keep` remain up to a step.

    Later snapshots are of a run that was killed after its last checkpoint; the resumed run replaces them.
    """
    paths = snapshot_files(folder)
    older = sorted((each for each in paths if each < step), reverse=True)
    for each in older[keep - 1 :]:
        remove_file(paths[each])


def _storage_dtype(name: str) -> torch.dtype | None:
    """The dtype that weights of higher precision are converted to; None for no conversion."""
    if name not in SNAPSHOT_DTYPES:
        raise InvalidConfig(f"the dtype of snapshots is {shown(name)}: {suggest(name, SNAPSHOT_DTYPES)}")
    return None if name == "float32" else getattr(torch, name)


def _stored_copy(name: str, tensor: Tensor, dtype: torch.dtype | None, step: int) -> Tensor:
    """A copy of a tensor on the CPU, converted to `dtype` if its own precision is higher.

    Raises:
        Diverged: a value is not finite.
        InvalidConfig: a value is too large for `dtype`.
    """
    converts = dtype is not None and tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize
    stored = tensor.to(dtype) if converts else tensor  # on the device, so that less memory is transferred
    if not is_finite(stored):
        if not is_finite(tensor):
            raise Diverged(f"{name} is no longer finite at step {step}")
        other = "bfloat16" if dtype == torch.float16 else "float32"
        raise InvalidConfig(
            f"{name} holds {tensor.abs().max():.4g} at step {step}, too large for {str(dtype).removeprefix('torch.')}; "
            f"record the snapshots in {other}"
        )
    return stored.to("cpu", copy=stored is tensor)
