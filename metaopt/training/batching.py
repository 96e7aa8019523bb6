"""Which pairs of snapshots go into a batch together: those of one layout, task and target."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..trajectories import WeightTrajectoryDataset
from .problem import problem_key


class PairBatch(NamedTuple):
    """Pairs by number, and the key of the problem that they share. They are read when they are needed."""

    problem: str
    indices: list[int]


def pair_batches(dataset: WeightTrajectoryDataset, order: Sequence[int], batch_size: int) -> Iterator[PairBatch]:
    """Divide pairs into batches, in the given order; a batch goes out when it is full, incomplete ones at the end."""
    problems = [problem_key(trajectory) for trajectory in dataset.trajectories]
    waiting: dict[str, list[int]] = defaultdict(list)
    for index in order:
        problem = problems[dataset.pairs[index].trajectory]
        waiting[problem].append(index)
        if len(waiting[problem]) == batch_size:
            yield PairBatch(problem, waiting.pop(problem))
    yield from (PairBatch(problem, indices) for problem, indices in waiting.items())
