"""Trajectories: the recorded snapshots of one training run, oldest first."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from jaxtyping import Float
from torch import Tensor

from ..core.errors import FileFormatError, LayoutMismatch, TrajectoryError
from ..core.registry import suggest
from ..core.text import shown
from ..weights.files import digest_of, files_of, read_digest, read_facts, read_tensors
from ..weights.layout import Layout
from .recorder import FROZEN, SNAPSHOT

TASK_FILE = "task.json"
"""Name of the file in a trajectory folder that describes the task."""

_FILES = "step_*.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """The description of a snapshot: its file, step, epoch and losses, without the weights.

    Args:
        path: file of the snapshot.
        segment: index of the segment in the trajectory.
        step: number of optimizer steps before the snapshot [steps].
        epoch: number of completed epochs [count].
        losses: losses by name.
        previous: step of the snapshot that was recorded before it [steps]; None for the first one, and in files of
            metaopt 0.1.
    """

    path: Path
    segment: int
    step: int
    epoch: int
    losses: dict[str, float]
    previous: int | None = None


class Segment(NamedTuple):
    """Consecutive snapshots with the same layout; their indices are range(start, stop)."""

    layout: Layout
    start: int
    stop: int


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
        """Open the trajectory in a folder and check that all snapshots belong to one run and none is missing between.

        Raises:
            TrajectoryError: the folder does not exist or has no snapshots; the snapshots belong to several runs; a file
                was renamed or removed; segment numbers decrease; or snapshots of one segment have different layouts.
            FileFormatError: a file is truncated or is not a snapshot.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise TrajectoryError(f"no trajectory {folder}: no such folder; expected a folder with files {_FILES}")
        paths = sorted(folder.glob(_FILES), key=_natural_sort_key)
        if not paths:
            raise TrajectoryError(f"no snapshots in {folder}; expected files {_FILES}, as written by train-target")
        facts = [read_facts(path, SNAPSHOT) for path in paths]
        _check_one_run(paths, facts)
        snapshots = [_snapshot(path, each) for path, each in zip(paths, facts, strict=True)]
        _check_none_missing(snapshots)
        return cls(folder, facts[0].get("run", {}), snapshots, _segments(snapshots, facts))

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
            FileFormatError: the file is damaged, or its tensors do not match its layout.
        """
        try:
            return self.segment(index).layout.flatten(self._tensors(index), out)
        except LayoutMismatch as error:
            path = self.snapshots[index].path
            raise FileFormatError(
                f"the tensors of {path} do not match its layout: {error}; record the run again"
            ) from error

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
        """
        return read_tensors(self._frozen_path, FROZEN)[0] if self._frozen_path.exists() else {}

    @cached_property
    def task(self) -> dict[str, Any] | None:
        """The description of the task, from `task.json` in the folder; None if that file does not exist.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self.folder / TASK_FILE
        return _json_object(path) if path.exists() else None

    def files(self) -> list[Path]:
        """The paths of all files of the trajectory, including shards, in a fixed order.

        Raises:
            FileFormatError: a file is truncated or was not written by metaopt.
        """
        frozen, task = self._frozen_path, self.folder / TASK_FILE
        stored = [snapshot.path for snapshot in self.snapshots] + ([frozen] if frozen.exists() else [])
        return [path for each in stored for path in files_of(each)] + ([task] if task.exists() else [])

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

    def _tensors(self, index: int) -> dict[str, Tensor]:
        """The memory-mapped tensors of a snapshot. The first access verifies the checksum of the file."""
        path = self.snapshots[index].path
        tensors, _ = read_tensors(path, SNAPSHOT, verify=path not in self._verified)
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
    folders = sorted({path.parent for path in _visible(folder, f"**/{_FILES}")}, key=_natural_sort_key)
    if not folders:
        paths = _visible(folder.parent, f"*/**/{_FILES}")
        others = sorted({path.relative_to(folder.parent).parts[0] for path in paths})
        hint = suggest(folder.name, others) if others else "record one with train-target"
        raise TrajectoryError(f"no trajectory {shown(folder.name)} in {folder.parent}: {hint}")
    return [Trajectory.open(each) for each in folders]


def _visible(folder: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder that match a pattern, without those that are hidden or in hidden subfolders."""
    for path in folder.glob(pattern):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _natural_sort_key(path: Path) -> list[list[int | str]]:
    """The key for natural sort order: seed_2 comes before seed_10."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def _check_one_run(paths: list[Path], facts: list[dict[str, Any]]) -> None:
    for path, each in zip(paths, facts, strict=True):
        if each.get("run") != facts[0].get("run"):
            raise TrajectoryError(
                f"{path} and {paths[0].name} belong to different runs ({_differences(each, facts[0])}). A folder must "
                "contain one run: move the other snapshots to another folder, or record the run again with --overwrite"
            )


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    first, second = one.get("run") or {}, other.get("run") or {}
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return ", ".join(f"{name} is {shown(first.get(name))} and {shown(second.get(name))}" for name in names)


def _check_none_missing(snapshots: list[Snapshot]) -> None:
    """Check that the predecessor of each snapshot is there, apart from the first one's: the oldest may be removed."""
    steps = {snapshot.step for snapshot in snapshots}
    for snapshot in snapshots[1:]:
        if snapshot.previous is not None and snapshot.previous not in steps:
            raise TrajectoryError(
                f"the snapshot of step {snapshot.previous} is missing in {snapshot.path.parent}. It was recorded "
                f"before {snapshot.path.name}. Copy or download the trajectory again, or record it again"
            )


def _snapshot(path: Path, facts: dict[str, Any]) -> Snapshot:
    try:
        snapshot = Snapshot(
            path,
            int(facts["segment"]),
            int(facts["step"]),
            int(facts["epoch"]),
            dict(facts["losses"]),
            facts.get("previous"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} has a missing or invalid field ({shown(error)}); expected a snapshot. Record the run again"
        ) from error
    if path.stem != f"step_{snapshot.step:08d}":
        raise TrajectoryError(
            f"{path} is the snapshot of step {snapshot.step}; rename it to step_{snapshot.step:08d}.safetensors"
        )
    return snapshot


def _segments(snapshots: list[Snapshot], facts: list[dict[str, Any]]) -> list[Segment]:
    """Group snapshots by segment; segment numbers must not decrease, and each segment has one layout."""
    for before, after in pairwise(snapshots):
        if after.segment < before.segment:
            raise TrajectoryError(
                f"{after.path} is in segment {after.segment}, but the previous snapshot is in segment "
                f"{before.segment}; expected increasing segment numbers. Record the run again"
            )
    segments: list[Segment] = []
    for _, members in groupby(range(len(snapshots)), key=lambda index: snapshots[index].segment):
        first, *rest = members
        for index in rest:
            if facts[index]["layout"] != facts[first]["layout"]:
                raise TrajectoryError(
                    f"{snapshots[index].path} and {snapshots[first].path.name} have different layouts; expected one "
                    "layout per segment. Record the run again"
                )
        segments.append(Segment(_layout(snapshots[first].path, facts[first]), first, first + 1 + len(rest)))
    return segments


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"cannot read {path}: {error}; copy the file again, or record the run again") from error
    if not isinstance(value, dict):
        raise FileFormatError(
            f"{path} contains a JSON {type(value).__name__}; expected a JSON object. Copy the file again"
        )
    return value


def _layout(path: Path, facts: dict[str, Any]) -> Layout:
    try:
        return Layout.from_list(facts.get("layout"))
    except LayoutMismatch as error:
        raise FileFormatError(f"{path} is not a valid snapshot: {error}") from error
