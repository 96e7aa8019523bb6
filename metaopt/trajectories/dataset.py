"""Dataset of snapshot pairs from many trajectories: training data for a generative optimizer."""

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
from ..core.text import shown
from .trajectory import Trajectory, find_trajectories

Mode = Literal["sequential", "permutation"]
MODES = ("sequential", "permutation")


class WeightPair(NamedTuple):
    """Two snapshots of one run and the history that ends with the first.

    A history that is too short is padded in front with copies of `start` and `t_start`. Times are in optimizer steps.
    """

    start: Float[Tensor, " weights"]
    end: Float[Tensor, " weights"]
    t_start: Float[Tensor, ""]
    t_end: Float[Tensor, ""]
    history: Float[Tensor, "history weights"]
    t_history: Float[Tensor, " history"]


class PairIndex(NamedTuple):
    """Indices of a pair: the trajectory, the start snapshot and the end snapshot."""

    trajectory: int
    start: int
    end: int


class WeightTrajectoryDataset(Dataset[WeightPair]):
    """Pairs of snapshots, read from disk on access.

    Trajectories may have different layouts; both snapshots of a pair are of one trajectory and one layout.

        from metaopt import WeightTrajectoryDataset

        dataset = WeightTrajectoryDataset("trajectories/digits", mode="permutation", history=3)
        pair = dataset[0]
        pair.history  # float32 [3, weights], which ends with pair.start
        pair.t_end - pair.t_start  # the horizon [optimizer steps]

    Args:
        trajectory_dir: folder of one or more trajectories, or opened trajectories.
        mode: "sequential" for (W_t, W_t+1), "permutation" for all (W_i, W_j) with i < j.
        history: length of the history, including `start` [snapshots].
    Raises:
        TrajectoryError: no trajectory was found, or one has a single snapshot.
        InvalidConfig: the mode is unknown, or the history is shorter than 1.
    """

    def __init__(
        self, trajectory_dir: Path | str | Sequence[Trajectory], mode: Mode = "sequential", history: int = 5
    ) -> None:
        if mode not in MODES:
            raise InvalidConfig(f"mode is {shown(mode)}: {suggest(str(mode), MODES)}")
        if history < 1:
            raise InvalidConfig(f"history is {history}; expected 1 or more snapshots")
        self.trajectories: list[Trajectory] = (
            find_trajectories(trajectory_dir) if isinstance(trajectory_dir, str | Path) else list(trajectory_dir)
        )
        self.mode = mode
        self.history = history
        self.pairs = [
            PairIndex(index, start, end)
            for index, trajectory in enumerate(self.trajectories)
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
        """Read pairs of one layout from disk; every field has a leading batch dimension.

        Weights are read into the batch without copies, and `start` is a view of `history`.

        Raises:
            FileFormatError: a snapshot is damaged.
        """
        chosen = [self.pairs[index] for index in indices]
        histories = [self._history_of(pair) for pair in chosen]
        weights = self.trajectories[chosen[0].trajectory].segment(chosen[0].start).layout.size
        history, end = torch.empty(len(chosen), self.history, weights), torch.empty(len(chosen), weights)
        for pair, snapshots, rows, end_row in zip(chosen, histories, history, end, strict=True):
            trajectory = self.trajectories[pair.trajectory]
            trajectory.weights(pair.end, out=end_row)
            trajectory.weights(pair.start, out=rows[-1])
            for snapshot, row in zip(snapshots, rows[:-1], strict=False):
                row.copy_(rows[-1]) if snapshot == pair.start else trajectory.weights(snapshot, out=row)
        times = [self.trajectories[pair.trajectory].steps for pair in chosen]
        return WeightPair(
            start=history[:, -1],
            end=end,
            t_start=torch.tensor([float(steps[pair.start]) for steps, pair in zip(times, chosen, strict=True)]),
            t_end=torch.tensor([float(steps[pair.end]) for steps, pair in zip(times, chosen, strict=True)]),
            history=history,
            t_history=torch.tensor(
                [[float(steps[snapshot]) for snapshot in each] for steps, each in zip(times, histories, strict=True)]
            ),
        )

    def _history_of(self, pair: PairIndex) -> list[int]:
        """Indices of the snapshots in a pair's history, with the start in place of missing ones."""
        first = self.trajectories[pair.trajectory].segment(pair.start).start
        indices = range(pair.start + 1 - self.history, pair.start + 1)
        return [index if index >= first else pair.start for index in indices]


def split_by_run(
    trajectories: Sequence[Trajectory], held_out: int, seed: int = 0
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Split trajectories at random into training and held-out runs.

    Whole runs are held out, because pairs of one run are too similar for a split within it.

    Args:
        held_out: number of held-out runs [count].
        seed: random seed of the split.
    Returns: the training runs and the held-out runs, each in the given order.
    Raises:
        TrajectoryError: no training run would be left.
    """
    count = len(trajectories)
    if not 0 <= held_out < max(count, 1):
        raise TrajectoryError(
            f"cannot hold out {held_out} of {count} trajectories; expected 0 to {max(count - 1, 0)}. Record more with "
            "train-target --runs"
        )
    chosen = set(torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:held_out].tolist())
    training = [trajectory for index, trajectory in enumerate(trajectories) if index not in chosen]
    return training, [trajectory for index, trajectory in enumerate(trajectories) if index in chosen]


def _pairs(trajectory: Trajectory, mode: Mode) -> Iterator[tuple[int, int]]:
    if len(trajectory) < 2:
        raise TrajectoryError(
            f"trajectory {trajectory.folder} has one snapshot; a pair needs two: train it for an epoch or more, or "
            "leave it out"
        )
    for segment in trajectory.segments:
        indices = range(segment.start, segment.stop)
        yield from combinations(indices, 2) if mode == "permutation" else pairwise(indices)
