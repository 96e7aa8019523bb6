"""Pairs of snapshots in batches: a batch holds pairs of one layout, task and target."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch.utils.data import default_collate

from ..trajectories import WeightTrajectoryDataset
from ..trajectories.dataset import WeightPair
from ..weights.layout import Layout
from .problem import problem_key


class PairBatch(NamedTuple):
    """Some pairs, every field with a batch dimension in front, and what they share."""

    problem: str
    layout: Layout
    pairs: WeightPair


def pair_batches(dataset: WeightTrajectoryDataset, order: Sequence[int], batch_size: int) -> Iterator[PairBatch]:
    """Read pairs in the given order; a batch goes out when it is full, incomplete ones at the end."""
    problems = [problem_key(trajectory) for trajectory in dataset.trajectories]
    waiting: dict[str, list[int]] = defaultdict(list)
    for index in order:
        problem = problems[dataset.pairs[index].trajectory]
        waiting[problem].append(index)
        if len(waiting[problem]) == batch_size:
            yield _read(dataset, problem, waiting.pop(problem))
    for problem, indices in waiting.items():
        yield _read(dataset, problem, indices)


def count_batches(dataset: WeightTrajectoryDataset, order: Sequence[int], batch_size: int) -> int:
    """How many batches `pair_batches` gives."""
    problems = [problem_key(trajectory) for trajectory in dataset.trajectories]
    pairs = Counter(problems[dataset.pairs[index].trajectory] for index in order)
    return sum(-(-count // batch_size) for count in pairs.values())


def _read(dataset: WeightTrajectoryDataset, problem: str, indices: list[int]) -> PairBatch:
    layout = dataset.trajectories[dataset.pairs[indices[0]].trajectory].layout
    return PairBatch(problem, layout, WeightPair(*default_collate([dataset[index] for index in indices])))
