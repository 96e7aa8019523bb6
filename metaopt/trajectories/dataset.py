"""Pairs of snapshots from many trajectories, as training data for a generative optimizer."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ..core.errors import InvalidConfig, TrajectoryError
from ..core.registry import suggest
from .trajectory import Trajectory, find_trajectories

Mode = Literal["sequential", "permutation"]
MODES = ("sequential", "permutation")


class WeightPair(NamedTuple):
    """Where a training stood, where it came to later, and how it got to the first.

    The history ends with `start`. Where the trajectory has no older snapshots, the missing rows are copies of
    `start` with `t_start`, in front of the others.
    """

    start: Float[Tensor, " weights"]
    end: Float[Tensor, " weights"]
    t_start: Float[Tensor, ""]
    t_end: Float[Tensor, ""]
    history: Float[Tensor, "history weights"]
    t_history: Float[Tensor, " history"]


class PairIndex(NamedTuple):
    """Which trajectory a pair is from, and the snapshots at its ends."""

    trajectory: int
    start: int
    end: int


class WeightTrajectoryDataset(Dataset[WeightPair]):
    """Pairs of snapshots; weights are read when a pair is asked for, so memory does not grow with the trajectories.

    Trajectories may have different layouts; pairs stay within one trajectory and one layout.

    Args:
        trajectory_dir: a trajectory, a folder of them (a run name, or all runs), or trajectories already opened.
        mode: "sequential" gives (W_t, W_t+1), "permutation" all (W_i, W_j) with i < j.
        history: how many snapshots the history of a pair has, `start` included [count].
    Raises:
        TrajectoryError: there is no trajectory, or one has a single snapshot.
        InvalidConfig: an unknown mode, or a history of less than 1.
    """

    def __init__(
        self, trajectory_dir: Path | str | Sequence[Trajectory], mode: Mode = "sequential", history: int = 5
    ) -> None:
        if mode not in MODES:
            raise InvalidConfig(f"mode is {mode!r}: {suggest(str(mode), MODES)}")
        if history < 1:
            raise InvalidConfig(f"history is {history}; expected 1 or more snapshots")
        self.trajectories: list[Trajectory] = (
            find_trajectories(trajectory_dir) if isinstance(trajectory_dir, str | Path) else list(trajectory_dir)
        )
        self.mode = mode
        self.history = history
        self.pairs = [
            PairIndex(which, start, end)
            for which, trajectory in enumerate(self.trajectories)
            for start, end in _pairs(trajectory, mode)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> WeightPair:
        """Read a pair from disk.

        Raises:
            FileFormatError: a snapshot is damaged.
        """
        return WeightPair(*(field[0] for field in self.batch([index])))

    def batch(self, indices: Sequence[int]) -> WeightPair:
        """Read pairs of one layout from disk; every field has a batch dimension in front.

        Weights go straight to their place, and `start` is a view of the history: large networks fit only once.

        Raises:
            FileFormatError: a snapshot is damaged.
        """
        chosen = [self.pairs[index] for index in indices]
        rows = [self._past(pair) for pair in chosen]
        weights = self.trajectories[chosen[0].trajectory].segment(chosen[0].start).layout.size
        history, end = torch.empty(len(chosen), self.history, weights), torch.empty(len(chosen), weights)
        for pair, past, its_history, its_end in zip(chosen, rows, history, end, strict=True):
            trajectory = self.trajectories[pair.trajectory]
            trajectory.weights(pair.end, out=its_end)
            trajectory.weights(pair.start, out=its_history[-1])
            for snapshot, row in zip(past, its_history[:-1], strict=False):
                row.copy_(its_history[-1]) if snapshot == pair.start else trajectory.weights(snapshot, out=row)
        times = [self.trajectories[pair.trajectory].steps for pair in chosen]
        return WeightPair(
            start=history[:, -1],
            end=end,
            t_start=torch.tensor([float(steps[pair.start]) for steps, pair in zip(times, chosen, strict=True)]),
            t_end=torch.tensor([float(steps[pair.end]) for steps, pair in zip(times, chosen, strict=True)]),
            history=history,
            t_history=torch.tensor(
                [[float(steps[snapshot]) for snapshot in past] for steps, past in zip(times, rows, strict=True)]
            ),
        )

    def _past(self, pair: PairIndex) -> list[int]:
        """The snapshots of a pair's history; the start itself stands for those that do not exist."""
        first = self.trajectories[pair.trajectory].segment(pair.start).start
        wanted = range(pair.start + 1 - self.history, pair.start + 1)
        return [snapshot if snapshot >= first else pair.start for snapshot in wanted]


def split_by_run(
    trajectories: Sequence[Trajectory], held_out: int, seed: int = 0
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Divide trajectories into those to learn from and those to judge on, whole runs at a time.

    Pairs of one run are too alike for some of them to judge what was learned from the others.

    Args:
        held_out: how many to judge on [count].
        seed: random seed of the choice.
    Returns: those to learn from, those held out; each in the order in which they came.
    Raises:
        TrajectoryError: nothing would be left to learn from.
    """
    count = len(trajectories)
    if not 0 <= held_out < max(count, 1):
        raise TrajectoryError(
            f"cannot hold out {held_out} of {count} trajectories; expected 0 to {max(count - 1, 0)}. Record more with "
            "train-target --runs"
        )
    chosen = set(torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:held_out].tolist())
    learned = [trajectory for index, trajectory in enumerate(trajectories) if index not in chosen]
    return learned, [trajectory for index, trajectory in enumerate(trajectories) if index in chosen]


def _pairs(trajectory: Trajectory, mode: Mode) -> Iterator[tuple[int, int]]:
    if len(trajectory) < 2:
        raise TrajectoryError(
            f"trajectory {trajectory.folder} has one snapshot; a pair needs two. Train it for an epoch or more, or "
            "leave it out"
        )
    for segment in trajectory.segments:
        indices = range(segment.start, segment.stop)
        yield from combinations(indices, 2) if mode == "permutation" else pairwise(indices)
