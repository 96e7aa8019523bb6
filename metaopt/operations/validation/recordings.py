"""Standard checks of trajectories: the snapshots follow each other as those of one training do."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from ...trajectories import Trajectory
from .base import STANDARD, Check, Finding
from .subjects import Subject

_LARGEST_RATIO = 1000.0  # of the norms of two snapshots of one segment, one of them the median
_LONGEST_DETOUR = 5.0  # by a snapshot, over the distance of its neighbours


class SnapshotOrder(Check):
    """Steps and epochs rise, none is missing, and all snapshots of a segment have one layout and one run."""

    level = STANDARD
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """The first thing that breaks the trajectory, or one finding for each epoch that falls."""
        trajectory = subject.trajectory
        trajectory.frozen()
        for before, after in pairwise(trajectory.snapshots):
            if after.epoch < before.epoch:
                yield Finding(
                    after.path.name,
                    f"it is of epoch {after.epoch}, but the snapshot of step {before.step} is of epoch {before.epoch}; "
                    "expected epochs that rise with the steps. Record the run again",
                )


class SnapshotPath(Check):
    """The norms of the snapshots are alike, and none lies far from both of its neighbours.

    A snapshot is far if its distances to both neighbours are more than five times the distance between them. Weights of
    another training, or of another time, are.
    """

    level = STANDARD
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each snapshot that stands out."""
        for _, start, stop, _ in subject.trajectory.segments:
            yield from _norms(subject.trajectory, range(start, stop))
            yield from _detours(subject.trajectory, range(start, stop))


def _norms(trajectory: Trajectory, indices: range) -> Iterator[Finding]:
    norms = [float(trajectory.weights(index).norm()) for index in indices]
    middle = median(norms)
    for index, norm in zip(indices, norms, strict=True):
        if norm > middle * _LARGEST_RATIO:
            yield Finding(
                trajectory.snapshots[index].path.name,
                f"its weights have the norm {norm:.3g}, and the median is {middle:.3g}; expected at most "
                f"{_LARGEST_RATIO:g} times as much. Copy it again, or record the run with a lower lr",
            )


def _detours(trajectory: Trajectory, indices: range) -> Iterator[Finding]:
    if len(indices) < 3:
        return
    first, second = (trajectory.weights(index) for index in indices[:2])
    for index in indices[2:]:
        third = trajectory.weights(index)
        aside, along = min((second - first).norm(), (third - second).norm()), (third - first).norm()
        if aside > _LONGEST_DETOUR * along:
            yield Finding(
                trajectory.snapshots[index - 1].path.name,
                f"its weights are {float(aside):.3g} or more from both neighbours, which are {float(along):.3g} apart: "
                "they are of another training or another time. Copy the trajectory again, or record it again",
            )
        first, second = second, third
