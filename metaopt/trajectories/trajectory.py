"""Reads trajectories: snapshots of one training run, oldest first, verified and memory-mapped."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from jaxtyping import Float
from torch import Tensor

from ..core.errors import FileFormatError, LayoutMismatch, TrajectoryError
from ..core.registry import suggest
from ..weights.files import digest_of, files_of, layout_of, read_digest, read_facts, read_tensors
from ..weights.layout import Layout
from .recorder import FROZEN, SNAPSHOT

TASK_FILE = "task.json"
"""Facts of the task, beside the snapshots: what cannot be read from them."""

_FILES = "step_*.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """What is known of one snapshot without reading its weights.

    Args:
        path: its file.
        segment: which segment of the trajectory it belongs to.
        step: training time [optimizer steps].
        epoch: finished epochs [count].
        losses: by name.
    """

    path: Path
    segment: int
    step: int
    epoch: int
    losses: dict[str, float]


class Segment(NamedTuple):
    """Snapshots, from `start` up to, not including, `stop`, that share a layout."""

    layout: Layout
    start: int
    stop: int


class Trajectory:
    """The snapshots of one training run. It keeps their facts; weights stay on disk until they are asked for."""

    def __init__(self, folder: Path, run: dict[str, Any], snapshots: list[Snapshot], segments: list[Segment]) -> None:
        self.folder = folder
        self.run = run
        self.snapshots = snapshots
        self.segments = segments
        self._verified: set[Path] = set()

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Find the snapshots in a folder and check that they belong together.

        Raises:
            TrajectoryError: no such folder, no snapshot in it, or snapshots of several runs or layouts.
            FileFormatError: a file is truncated, or is no snapshot.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise TrajectoryError(f"no trajectory {folder}: there is no such folder; expected one with {_FILES} in it")
        paths = sorted(folder.glob(_FILES), key=_natural)
        if not paths:
            raise TrajectoryError(f"no snapshot in {folder}; expected {_FILES}, as train-target writes them")
        facts = [read_facts(path, SNAPSHOT) for path in paths]
        _check_one_run(paths, facts)
        snapshots = [_snapshot(path, its) for path, its in zip(paths, facts, strict=True)]
        return cls(folder, facts[0].get("run", {}), snapshots, _segments(snapshots, facts))

    def __len__(self) -> int:
        return len(self.snapshots)

    @property
    def name(self) -> str:
        """The run name and the random seed ("cnn/seed_0"), for messages and figures."""
        return f"{self.folder.absolute().parent.name}/{self.folder.name}"

    @property
    def averaging(self) -> float:
        """Decay of the running average of the weights that its snapshots are of; 0: they are the weights themselves."""
        return float(self.run.get("averaging", 0.0))

    @property
    def steps(self) -> list[int]:
        """Training times of the snapshots, rising [optimizer steps]."""
        return [snapshot.step for snapshot in self.snapshots]

    @property
    def layout(self) -> Layout:
        """Names and shapes of the weights.

        Raises:
            TrajectoryError: they change within the trajectory; see `segments`.
        """
        if len(self.segments) > 1:
            raise TrajectoryError(
                f"{self.folder} has {len(self.segments)} segments, each with a layout: use `segments`"
            )
        return self.segments[0].layout

    def losses(self, index: int) -> dict[str, float]:
        """The losses that were recorded with a snapshot, by name."""
        return dict(self.snapshots[index].losses)

    def segment(self, index: int) -> Segment:
        """The segment that a snapshot belongs to."""
        index = range(len(self))[index]
        return next(segment for segment in self.segments if index < segment.stop)

    def weights(self, index: int, out: Float[Tensor, " weights"] | None = None) -> Float[Tensor, " weights"]:
        """The trainable weights of a snapshot, float32, in the order of its layout.

        Args:
            out: where to put them; a new vector unless given.
        Raises:
            FileFormatError: the file is damaged, or its tensors are not those of its layout.
        """
        try:
            return self.segment(index).layout.flatten(self._tensors(index), out)
        except LayoutMismatch as error:
            path = self.snapshots[index].path
            raise FileFormatError(
                f"{path} does not hold what its layout says: {error}; record the run again"
            ) from error

    def buffers(self, index: int) -> dict[str, Tensor]:
        """What a snapshot holds beside its trainable weights: the running statistics of BatchNorm, by name.

        Raises:
            FileFormatError: the file is damaged.
        """
        names = {tensor.name for tensor in self.segment(index).layout.tensors}
        return {name: tensor for name, tensor in self._tensors(index).items() if name not in names}

    def frozen(self) -> dict[str, Tensor]:
        """The weights that the run did not train, by name; none where it trained all.

        Raises:
            FileFormatError: their file is damaged.
        """
        return read_tensors(self._frozen_path, FROZEN)[0] if self._frozen_path.exists() else {}

    @cached_property
    def task(self) -> dict[str, Any] | None:
        """Facts of the task that the run was trained on, as training wrote them beside the snapshots; None without.

        Raises:
            FileFormatError: their file is damaged.
        """
        path = self.folder / TASK_FILE
        return _json_object(path) if path.exists() else None

    def files(self) -> list[Path]:
        """Every file of the trajectory, in a stable order: what to copy or upload, shards included.

        Raises:
            FileFormatError: a file is truncated, or not one of ours.
        """
        frozen, task = self._frozen_path, self.folder / TASK_FILE
        stored = [snapshot.path for snapshot in self.snapshots] + ([frozen] if frozen.exists() else [])
        return [path for each in stored for path in files_of(each)] + ([task] if task.exists() else [])

    @cached_property
    def frozen_digest(self) -> str:
        """Identifies the weights that the run did not train, and nothing else: 64 hexadecimal characters.

        Raises:
            FileFormatError: their file is damaged.
        """
        return digest_of(self.frozen(), {})

    @cached_property
    def digest(self) -> str:
        """Identifies the recorded weights and facts: 32 hexadecimal characters."""
        sha = hashlib.sha256("".join(read_digest(each.path, SNAPSHOT) for each in self.snapshots).encode())
        return sha.hexdigest()[:32]

    @property
    def _frozen_path(self) -> Path:
        return self.folder / f"{FROZEN}.safetensors"

    def _tensors(self, index: int) -> dict[str, Tensor]:
        """The tensors of a file, views of it; hashed only the first time."""
        path = self.snapshots[index].path
        tensors, _ = read_tensors(path, SNAPSHOT, verify=path not in self._verified)
        self._verified.add(path)
        return tensors


def find_trajectories(folder: Path | str) -> list[Trajectory]:
    """Open every trajectory at or below a folder, in the order of their names and random seeds.

    Raises:
        TrajectoryError: there is none; the message names the nearest ones that exist.
        FileFormatError: a file is truncated, or is no snapshot.
    """
    folder = Path(folder)
    found = sorted({path.parent for path in folder.rglob(_FILES)}, key=_natural)
    if not found:
        others = sorted({path.relative_to(folder.parent).parts[0] for path in folder.parent.glob(f"*/**/{_FILES}")})
        hint = suggest(folder.name, others) if others else "record one with train-target"
        raise TrajectoryError(f"no trajectory {folder.name!r} in {folder.parent}: {hint}")
    return [Trajectory.open(place) for place in found]


def _natural(path: Path) -> list[list[int | str]]:
    """Sorts seed_10 after seed_2."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def _check_one_run(paths: list[Path], facts: list[dict[str, Any]]) -> None:
    for path, its in zip(paths, facts, strict=True):
        if its.get("run") != facts[0].get("run"):
            raise TrajectoryError(
                f"{path} and {paths[0].name} are of different runs ({_differing(its, facts[0])}); expected snapshots "
                "of one run: move the others elsewhere, or record the run again with --overwrite"
            )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    ours, theirs = one.get("run") or {}, other.get("run") or {}
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} is {ours.get(name)!r} and {theirs.get(name)!r}" for name in names)


def _snapshot(path: Path, facts: dict[str, Any]) -> Snapshot:
    try:
        snapshot = Snapshot(path, int(facts["segment"]), int(facts["step"]), int(facts["epoch"]), dict(facts["losses"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} lacks facts of a snapshot ({error!r}); record the run again") from error
    if path.stem != f"step_{snapshot.step:08d}":
        raise TrajectoryError(f"{path} is of step {snapshot.step}, as its facts say; give it back its own name")
    return snapshot


def _segments(snapshots: list[Snapshot], facts: list[dict[str, Any]]) -> list[Segment]:
    """Group snapshots by their segment, which must not fall and has one layout."""
    for before, after in pairwise(snapshots):
        if after.segment < before.segment:
            raise TrajectoryError(f"{after.path} is of segment {after.segment}, after one of segment {before.segment}")
    segments: list[Segment] = []
    for _, members in groupby(range(len(snapshots)), key=lambda index: snapshots[index].segment):
        first, *rest = members
        for index in rest:
            if facts[index]["layout"] != facts[first]["layout"]:
                raise TrajectoryError(
                    f"{snapshots[index].path} and {snapshots[first].path.name} have different layouts; expected one "
                    "network in the snapshots of one segment: record the run again"
                )
        segments.append(Segment(_layout(snapshots[first].path, facts[first]), first, first + 1 + len(rest)))
    return segments


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"cannot read {path}: {error}; get it anew, or record the run again") from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} holds no JSON object but {type(value).__name__}; get it anew")
    return value


def _layout(path: Path, facts: dict[str, Any]) -> Layout:
    try:
        return layout_of(facts)
    except LayoutMismatch as error:
        raise FileFormatError(f"{path} is no snapshot: {error}") from error
