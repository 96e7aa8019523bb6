"""Which pairs of snapshots go into a batch together: those of one layout, task and target."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from ..core.errors import TrajectoryError
from ..core.progress import Progress
from ..core.rng import generator
from ..core.tracker import Tracker
from ..generative import GenerativeOptimizer
from ..trajectories import Trajectory, WeightTrajectoryDataset, find_trajectories, split_by_run
from .config import TrainOptimizerConfig
from .objectives import OBJECTIVES, Judged, judge_predictions
from .problem import InnerProblem, problem_key
from .state import MetaTrainingState


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


_JUDGED_PAIRS = 96  # enough that validation figures are smooth, few enough that they cost little
_JUDGED_EXAMPLES = 512


class OfflineSource:
    """Pairs of the trajectories of one or several run names; some trajectories are held out.

    Args:
        config: which trajectories, pairs and objective.
        history: how many snapshots the optimizer looks at [count].
        averaging: decay of the running average of which they are; 0 for the weights themselves.
    Raises:
        TrajectoryError: no trajectory of that name, one with a single snapshot, too few to hold any out, or some are
            of another running average.
        UnknownName, InvalidConfig, TaskDataError: their losses are asked for and cannot be measured here.
    """

    def __init__(self, config: TrainOptimizerConfig, history: int, averaging: float) -> None:
        trajectories = [found for name in config.run_names for found in find_trajectories(config.trajectory_dir / name)]
        for trajectory in trajectories:
            _check_averaging(trajectory, averaging)
        held_out = len(trajectories) // 4 if config.held_out is None else config.held_out
        learned, judged = split_by_run(trajectories, held_out, config.seed)
        self.config = config
        self.shares = OBJECTIVES[config.objective]
        self.pairs = WeightTrajectoryDataset(learned, config.training_mode, history)  # type: ignore[arg-type]
        self.judged_pairs = WeightTrajectoryDataset(judged, config.training_mode, history)  # type: ignore[arg-type]
        self.problems = _problems(trajectories, config) if self.shares.task else {}
        self.learned, self.held_out = [each.name for each in learned], [each.name for each in judged]
        subjects = (f"{each.run['target_model']} on {each.run['task']}" for each in trajectories)
        self.subjects = list(dict.fromkeys(subjects))
        self.layouts = list(dict.fromkeys(each.layout for each in trajectories))
        strides = [after - before for each in trajectories for before, after in pairwise(each.steps)]
        self.stride = float(median(strides))
        self.settings: dict[str, Any] = {
            **config.settings(),
            "trajectories": [trajectory.digest for trajectory in learned],
        }

    def describe(self, tracker: Tracker) -> None:
        """Tell the trajectories."""
        for context, pairs in (("train", self.pairs), ("held-out", self.judged_pairs)):
            for trajectory in pairs.trajectories:
                tracker.dataset(trajectory.name, str(trajectory.folder), trajectory.digest, context)

    def updates(self, epoch: int) -> int:
        """How many batches of pairs an epoch has [count]."""
        return len(list(pair_batches(self.pairs, self._order(epoch), self.config.batch_size)))

    def prepare(self, run: MetaTrainingState) -> None:
        """Nothing: trajectories lie there."""

    def train(self, run: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Train on the pairs of an epoch."""
        means = _Means()
        for number, batch in enumerate(pair_batches(self.pairs, self._order(run.epoch), self.config.batch_size)):
            bar.update(loss=self._update(run, batch, generator(self.config.seed, run.epoch, number), means))
        return means.named("train")

    @torch.no_grad()
    def judge(self, run: MetaTrainingState) -> dict[str, float]:
        """Figures of the averaged weights on held-out trajectories: always the same pairs and examples."""
        means = _Means()
        few = min(_JUDGED_PAIRS, len(self.judged_pairs))
        order = torch.linspace(0, len(self.judged_pairs) - 1, few).long().tolist()
        for batch in pair_batches(self.judged_pairs, order, self.config.batch_size):
            random = generator(self.config.seed)
            means.add(self._predict(run.predictor, self.judged_pairs, batch, _JUDGED_EXAMPLES, random))
        return means.named("val")

    def _order(self, epoch: int) -> list[int]:
        """The pairs of an epoch, in an order that depends on the random seed and the epoch alone."""
        order = torch.randperm(len(self.pairs), generator=generator(self.config.seed, epoch)).tolist()
        return order[: self.config.pairs_per_epoch or None]

    def _update(self, run: MetaTrainingState, batch: PairBatch, random: torch.Generator, means: "_Means") -> float:
        """One update; in a function of its own, so that its large tensors are gone before the next batch is read."""
        judged = self._predict(run.model, self.pairs, batch, self.config.task_batch, random)
        objective = judged.objective.mean()
        run.update(objective)
        means.add(judged)
        return objective.item()

    def _predict(
        self,
        model: GenerativeOptimizer,
        dataset: WeightTrajectoryDataset,
        batch: PairBatch,
        examples: int,
        random: torch.Generator,
    ) -> Judged:
        pairs = dataset.batch(batch.indices)
        layout = dataset.trajectories[dataset.pairs[batch.indices[0]].trajectory].layout
        predicted = model.generate(pairs.history, pairs.t_history, pairs.t_end, layout)
        problem = self.problems.get(batch.problem)
        shown = problem.task.sample("meta", examples, random) if problem else None
        return judge_predictions(predicted, pairs, layout, self.shares, problem, shown)


def recorded_averaging(config: TrainOptimizerConfig) -> float:
    """Decay of the running average that the first run name's snapshots are of; 0: they are the weights themselves.

    Raises:
        TrajectoryError: no trajectory of that name.
    """
    return find_trajectories(config.trajectory_dir / config.run_names[0])[0].averaging


def _check_averaging(trajectory: Trajectory, averaging: float) -> None:
    if (recorded := trajectory.averaging) != averaging:
        raise TrajectoryError(
            f"{trajectory.folder} holds snapshots of a running average of decay {recorded:g} (0: the weights "
            f"themselves), and the optimizer is to be shown ones of {averaging:g}. Leave out its option `averaging`, "
            "and take trajectories that were recorded alike"
        )


def _problems(trajectories: list[Trajectory], config: TrainOptimizerConfig) -> dict[str, InnerProblem]:
    problems: dict[str, InnerProblem] = {}
    for trajectory in trajectories:
        if (key := problem_key(trajectory)) not in problems:
            problems[key] = InnerProblem.of(trajectory, config.data_dir, trust_code=config.trust_code)
    return problems


class _Means:
    """Gathers what was judged, for the means of an epoch."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, judged: Judged) -> None:
        self._values["objective"] += judged.objective.tolist()
        self._values["relative_error"] += judged.relative_error.tolist()
        if judged.log_loss_change is not None:
            self._values["log_loss_change"] += judged.log_loss_change.tolist()

    def named(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}_{name}": fmean(values) for name, values in self._values.items()}
