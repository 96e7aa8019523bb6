"""Trajectories: the recorded snapshots of one training run, oldest first."""

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor

from ..core.errors import FileFormatError, LayoutMismatch, TrajectoryError
from ..core.registry import suggest
from ..core.text import shown
from ..weights.building import check_finite
from ..weights.files import digest_of, files_of, read_digest, read_tensors
from ..weights.layout import Layout
from .origin import ORIGIN_FILE
from .reader import SNAPSHOT_FILES, Segment, Snapshot, natural_sort_key, read_snapshots
from .recorder import FROZEN, SNAPSHOT
from .sealed_json import GROWTH_FILE
from .task_file import LAST_STEP, TASK_FILE, read_task


class Trajectory:
    """The snapshots of one training run.

    Weights are read on demand from memory-mapped files. The checksum of each file is verified on first access.

        from metaopt import Trajectory

        trajectory = Trajectory.open("trajectories/digits/seed_0")
        trajectory.steps  # [0, 5, 10, …]
        trajectory.losses(-1)  # such as {"train_loss": 0.5, "val_loss": 0.6}
        trajectory.weights(-1)  # float32 [weights]; trajectory.layout names its tensors
    """

    def __init__(self, folder: Path, run: dict[str, Any], snapshots: list[Snapshot], segments: list[Segment]) -> None:
        self.folder = folder
        self.run = run
        self.snapshots = snapshots
        self.segments = segments
        self._verified: set[Path] = set()

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open the trajectory in a folder and check that its snapshots belong to one run and that none is missing.

        The oldest may be missing: a recording may keep only the last ones. A recording that has not finished may end
        anywhere.

        Raises:
            TrajectoryError: the folder does not exist or has no snapshots; the snapshots belong to several runs; a file
                was renamed or removed; segment numbers decrease; or snapshots of one segment have different layouts.
            FileFormatError: a file is truncated, is damaged or is not a snapshot.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise TrajectoryError(f"no trajectory {folder}: no such folder; expected one with files {SNAPSHOT_FILES}")
        trajectory = cls(folder, *read_snapshots(folder))
        trajectory._check_end()
        return trajectory

    def __len__(self) -> int:
        return len(self.snapshots)

    @property
    def name(self) -> str:
        """Run name and random seed, such as "cnn/seed_0"."""
        return f"{self.folder.absolute().parent.name}/{self.folder.name}"

    @property
    def averaging(self) -> float:
        """EMA decay of the weights in the snapshots; 0 without averaging."""
        return float(self.run.get("averaging", 0.0))

    @property
    def steps(self) -> list[int]:
        """The step of each snapshot, in ascending order [steps]."""
        return [snapshot.step for snapshot in self.snapshots]

    @property
    def layout(self) -> Layout:
        """The layout of the weights.

        Raises:
            TrajectoryError: the trajectory has several segments.
        """
        if len(self.segments) > 1:
            raise TrajectoryError(
                f"{self.folder} has {len(self.segments)} segments, each with its own layout; use `segments`"
            )
        return self.segments[0].layout

    @property
    def growth(self) -> list[dict[str, Any]]:
        """The growth seeds of the network, as `metaopt.growth.grow` takes them; empty if it has not grown.

        Raises:
            TrajectoryError: the trajectory has several segments.
        """
        self.layout  # noqa: B018  # it raises
        return self.segments[0].growth

    def parts(self) -> list["Trajectory"]:
        """A trajectory of each segment that has two snapshots or more; of one segment, the trajectory itself."""
        if len(self.segments) == 1:
            return [self]
        return [self.part_of(start) for _, start, stop, _ in self.segments if stop - start > 1]

    def part_of(self, index: int) -> "Trajectory":
        """The trajectory of the segment that contains a snapshot; of one segment, the trajectory itself."""
        if len(self.segments) == 1:
            return self
        layout, start, stop, growth = self.segment(index)
        return Trajectory(self.folder, self.run, self.snapshots[start:stop], [Segment(layout, 0, stop - start, growth)])

    def losses(self, index: int) -> dict[str, float]:
        """The losses of a snapshot, by name."""
        return dict(self.snapshots[index].losses)

    def segment(self, index: int) -> Segment:
        """The segment that contains a snapshot."""
        index = range(len(self))[index]
        return next(segment for segment in self.segments if index < segment.stop)

    def weights(self, index: int, out: Float[Tensor, " weights"] | None = None) -> Float[Tensor, " weights"]:
        """Read the trainable weights of a snapshot as a flat float32 vector, in the order of its layout.

        Args:
            out: output tensor; a new tensor by default.
        Raises:
            FileFormatError: the file is damaged, its tensors do not match its layout, or a weight is not finite.
        """
        return self.segment(index).layout.flatten(self._tensors(index), out)

    def buffers(self, index: int) -> dict[str, Tensor]:
        """Read the persistent buffers of a snapshot by name, such as the running statistics of BatchNorm.

        Raises:
            FileFormatError: the file is damaged.
        """
        names = {tensor.name for tensor in self.segment(index).layout.tensors}
        return {name: tensor for name, tensor in self._tensors(index).items() if name not in names}

    def frozen(self) -> dict[str, Tensor]:
        """Read the frozen weights of the run by name; empty if all weights were trained.

        Raises:
            FileFormatError: the file of the frozen weights is damaged.
            TrajectoryError: it belongs to another run.
        """
        path = self._frozen_path
        if not os.path.lexists(path):
            return {}
        tensors, facts = read_tensors(path, FROZEN)
        if facts["run"] != self.run:
            raise TrajectoryError(f"{path} belongs to another run than the snapshots beside it; copy all files again")
        return tensors

    @cached_property
    def task(self) -> dict[str, Any] | None:
        """The description of the task, from `task.json` in the folder; None if that file does not exist.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self.folder / TASK_FILE
        return read_task(path) if os.path.lexists(path) else None

    def files(self) -> list[Path]:
        """The paths of all files of the trajectory, including shards, in a fixed order.

        Raises:
            FileFormatError: a file is truncated or was not written by metaopt.
        """
        frozen = self._frozen_path
        stored = [snapshot.path for snapshot in self.snapshots] + ([frozen] if os.path.lexists(frozen) else [])
        beside = [path for name in (TASK_FILE, GROWTH_FILE, ORIGIN_FILE) if os.path.lexists(path := self.folder / name)]
        return [path for each in stored for path in files_of(each)] + beside

    @cached_property
    def frozen_digest(self) -> str:
        """The SHA-256 of the frozen weights: 64 hexadecimal characters.

        Raises:
            FileFormatError: the file of the frozen weights is damaged.
        """
        return digest_of(self.frozen(), {})

    @cached_property
    def digest(self) -> str:
        """A digest of the weights and facts of all snapshots: 32 hexadecimal characters."""
        sha = hashlib.sha256("".join(read_digest(each.path, SNAPSHOT) for each in self.snapshots).encode())
        return sha.hexdigest()[:32]

    @property
    def _frozen_path(self) -> Path:
        return self.folder / f"{FROZEN}.safetensors"

    def _check_end(self) -> None:
        """Check that the last snapshot of a finished recording is there."""
        last = (self.task or {}).get(LAST_STEP, 0)
        if self.steps[-1] < last:
            raise TrajectoryError(
                f"the snapshots after step {self.steps[-1]} are missing in {self.folder}: its recording ended at step "
                f"{last}, says {TASK_FILE}. Copy or download the trajectory again, or record it again"
            )

    def _tensors(self, index: int) -> dict[str, Tensor]:
        """The memory-mapped tensors of a snapshot. The first access verifies the checksum and the weights."""
        path = self.snapshots[index].path
        first = path not in self._verified
        tensors, _ = read_tensors(path, SNAPSHOT, verify=first)
        if first:
            try:
                layout = self.segment(index).layout
                layout.check_tensors(tensors)
                check_finite({tensor.name: tensors[tensor.name] for tensor in layout.tensors})
            except LayoutMismatch as error:
                raise FileFormatError(
                    f"the tensors of {path} are not those of a snapshot: {error}; record the run again"
                ) from error
            self._verified.add(path)
        return tensors


def find_trajectories(folder: Path | str) -> list[Trajectory]:
    """Open all trajectories in a folder and its subfolders, sorted by name and random seed.

    Hidden subfolders are skipped: an unfinished download is in a folder whose name begins with a dot.

    Raises:
        TrajectoryError: no trajectory was found. The message suggests folders with similar names.
        FileFormatError: a file is truncated or is not a snapshot.
    """
    folder = Path(folder)
    folders = sorted({path.parent for path in _visible(folder, f"**/{SNAPSHOT_FILES}")}, key=natural_sort_key)
    if not folders:
        paths = _visible(folder.parent, f"*/**/{SNAPSHOT_FILES}")
        others = sorted({path.relative_to(folder.parent).parts[0] for path in paths})
        hint = suggest(folder.name, others) if others else "record one with train-target"
        raise TrajectoryError(f"no trajectory {shown(folder.name)} in {folder.parent}: {hint}")
    return [Trajectory.open(each) for each in folders]


def _visible(folder: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder that match a pattern, without those that are hidden or in hidden subfolders."""
    for path in folder.glob(pattern):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
