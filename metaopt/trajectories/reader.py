"""Reads the facts of all snapshots in a folder, and checks that they are one whole trajectory."""

import re
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import FileFormatError, LayoutMismatch, TrajectoryError
from ..core.text import shown
from ..weights.files import read_facts, read_listed
from ..weights.layout import Layout
from .recorder import SNAPSHOT

SNAPSHOT_FILES = "step_*.safetensors"
"""Pattern of the names of snapshots."""


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
    """Consecutive snapshots of the same network; their indices are range(start, stop).

    Attributes:
        layout: the layout of the weights.
        growth: the growth seeds of the network, as `metaopt.growth.grow` takes them.
    """

    layout: Layout
    start: int
    stop: int
    growth: list[dict[str, Any]]


def read_snapshots(folder: Path) -> tuple[dict[str, Any], list[Snapshot], list[Segment]]:
    """Read the facts of the snapshots in a folder, in the order of their steps.

    Returns: the facts of the run, the snapshots and the segments.
    Raises:
        TrajectoryError, FileFormatError: as for `Trajectory.open`.
    """
    paths = sorted(folder.glob(SNAPSHOT_FILES), key=natural_sort_key)
    if not paths:
        raise TrajectoryError(f"no snapshots in {folder}; expected files {SNAPSHOT_FILES}, as written by train-target")
    facts = [read_facts(path, SNAPSHOT) for path in paths]
    _check_one_run(paths, facts)
    snapshots = [_snapshot(path, each) for path, each in zip(paths, facts, strict=True)]
    _check_none_missing(snapshots)
    return facts[0]["run"], snapshots, _segments(snapshots, facts)


def natural_sort_key(path: Path) -> list[list[int | str]]:
    """The key for natural sort order: seed_2 comes before seed_10."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def _check_one_run(paths: list[Path], facts: list[dict[str, Any]]) -> None:
    for path, each in zip(paths, facts, strict=True):
        if each["run"] != facts[0]["run"]:
            raise TrajectoryError(
                f"{path} and {paths[0].name} belong to different runs ({_differences(each, facts[0])}). A folder must "
                "contain one run: move the other snapshots to another folder, or record the run again with --overwrite"
            )


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    first, second = one["run"], other["run"]
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
    step = facts["step"]
    if path.stem != f"step_{step:08d}":
        raise TrajectoryError(f"{path} is the snapshot of step {step}; rename it to step_{step:08d}.safetensors")
    return Snapshot(path, facts["segment"], step, facts["epoch"], facts["losses"], facts.get("previous"))


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
            for name, plural in (("layout", "layouts"), ("growth", "growth seeds")):
                if facts[index].get(name) != facts[first].get(name):
                    raise TrajectoryError(
                        f"{snapshots[index].path} and {snapshots[first].path.name} have different {plural}; expected "
                        "the same in each segment. Record the run again"
                    )
        layout, growth = _layout(snapshots[first].path, facts[first]), facts[first].get("growth", [])
        segments.append(Segment(layout, first, first + 1 + len(rest), growth))
    return segments


def _layout(path: Path, facts: dict[str, Any]) -> Layout:
    """The layout of a snapshot. Its tensors in the file have its shapes, so that it is no larger than the file."""
    try:
        layout = Layout.from_list(facts["layout"])
        layout.check_tensors(read_listed(path, SNAPSHOT)[0])
    except LayoutMismatch as error:
        raise FileFormatError(f"{path} is not a valid snapshot: {error}. Record the run again") from error
    return layout
