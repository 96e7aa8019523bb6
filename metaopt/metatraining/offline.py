"""Offline meta-training: the generative optimizer is trained on pairs of recorded snapshots."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.control import StopRequested, control
from ..core.devices import CPU, move
from ..core.errors import InvalidConfig, TrajectoryError
from ..core.progress import Progress
from ..core.rng import generator
from ..core.tracker import Tracker
from ..generative import GenerativeOptimizer
from ..trajectories import Trajectory, WeightTrajectoryDataset, find_trajectories, split_by_run
from ..trajectories.dataset import WeightPair
from ..trajectories.origin import Parent
from ..trajectories.parents import trajectory_parent
from .config import TrainOptimizerConfig
from .curriculum import OFFLINE_METRICS, Curriculum, StageConfig
from .objectives import OBJECTIVES, PredictionScores, score_predictions
from .problem import InnerProblem, problem_key
from .source import recorded_trajectories
from .state import MetaTrainingState
from .trained import problem_name, recorded_network

log = logging.getLogger(__name__)

_VALIDATION_PAIRS = 96  # maximum number; enough for smooth validation curves at low cost
_VALIDATION_EXAMPLES = 512  # examples on which validation losses are measured


class OfflineSource:
    """Data source of offline meta-training: pairs of snapshots from the trajectories of one or more run names.

    Some trajectories are held out for validation.

    Args:
        config: specifies the trajectories, the pairs and the objective.
        history: length of the optimizer's history [count].
        averaging: EMA decay with which the snapshots must have been recorded; 0 without averaging.
        device: device of the optimizer, to which pairs and examples are moved batch by batch.
        trusted_names: dotted paths of networks that may be imported, in addition to what `config` trusts.
    Raises:
        TrajectoryError: a trajectory is missing, has only one snapshot, or was recorded with another EMA decay than
            `averaging`; or no trajectory is left for training.
        UnknownName, InvalidConfig, LayoutMismatch, TaskDataError: the objective contains the loss, but the task or the
            network of a trajectory cannot be loaded.
    """

    def __init__(
        self,
        config: TrainOptimizerConfig,
        history: int,
        averaging: float,
        device: torch.device = CPU,
        trusted_names: Collection[str] = (),
    ) -> None:
        trajectories = recorded_trajectories(config)
        for trajectory in trajectories:
            _check_averaging(trajectory, averaging)
        held_out_count = len(trajectories) // 4 if config.held_out is None else config.held_out
        training, held_out = map(_parts, split_by_run(trajectories, held_out_count, config.seed))
        self._recorded = trajectories
        trajectories = _parts(trajectories)
        self.config, self.device = config, device
        self.coefficients = OBJECTIVES[config.objective]
        self.training = WeightTrajectoryDataset(training, config.training_mode, history)  # type: ignore[arg-type]
        self.held_out = WeightTrajectoryDataset(held_out, config.training_mode, history)  # type: ignore[arg-type]
        self.problems = _problems(trajectories, config, device, trusted_names) if self.coefficients.task else {}
        self.training_names, self.held_out_names = _names(training), _names(held_out)
        problem_names = (problem_name(recorded_network(each.run), each.run["task"]) for each in trajectories)
        self.problem_names = list(dict.fromkeys(problem_names))
        self.layouts = list(dict.fromkeys(each.layout for each in trajectories))
        strides = [after - before for each in trajectories for before, after in pairwise(each.steps)]
        self.stride = float(median(strides))
        self.settings: dict[str, Any] = {
            **config.settings(),
            "trajectories": [trajectory.digest for trajectory in training],
        }

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The trajectories, those that are held out included."""
        return tuple(map(trajectory_parent, self._recorded))

    def log_data(self, tracker: Tracker) -> None:
        """Log the trajectories as data sets."""
        for context, dataset in (("train", self.training), ("held-out", self.held_out)):
            for trajectory in dataset.trajectories:
                tracker.dataset(trajectory.name, str(trajectory.folder), trajectory.digest, context)

    def check_curriculum(self, curriculum: Curriculum) -> None:
        """Check that each stage has pairs to train on and to validate on.

        Raises:
            InvalidConfig: a stage has none, or the metric or a bound is one of online rounds.
        """
        known = OFFLINE_METRICS if self.coefficients.task else ("relative_error", "objective")
        if curriculum.config.metric not in known:
            raise InvalidConfig(
                f"the metric of the curriculum is {curriculum.config.metric}, which this training does not measure; "
                f"expected {', '.join(known)}"
            )
        for number, stage in enumerate(curriculum.stages, 1):
            if stage.components or stage.inner_steps is not None:
                raise InvalidConfig(
                    f"stage {number} of the curriculum has components or inner_steps, which online rounds have; give "
                    "horizon and weights, or train with rounds and a mixture"
                )
            for dataset, use in ((self.training, "train"), (self.held_out, "validate")):
                if not _pairs_of(dataset, range(len(dataset)), stage):
                    raise InvalidConfig(
                        f"stage {number} of the curriculum has no pair of snapshots to {use} on: its horizon is "
                        f"{stage.horizon} steps and its weights are {stage.weights}; expected bounds that some pairs "
                        "keep, and held-out trajectories"
                    )

    def updates(self, epoch: int) -> int:
        """Number of batches in an epoch [count]; of all data, if there is a curriculum."""
        return len(list(pair_batches(self.training, self._order(epoch), self.config.batch_size)))

    def prepare(self, state: MetaTrainingState) -> None:
        """Say what the progress bar shows; the trajectories are already recorded."""
        log.info(
            "objective `%s`: %g × squared error of a prediction, relative to keeping the weights, + %g × change of the "
            "log-loss by it; lower is better, and below 0 the loss falls",
            self.config.objective,
            *self.coefficients,
        )

    def train(self, state: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Train to the end of the epoch.

        Returns: the means of the training metrics.
        Raises:
            StopRequested: the process was asked to stop; the state can be saved.
        """
        means = _Means(state.epoch_values)
        batches = enumerate(
            pair_batches(self.training, self._order(state.epoch, state.curriculum), self.config.batch_size)
        )
        for number, batch in islice(batches, state.epoch_updates, None):
            random = generator(self.config.seed, state.epoch, number)
            bar.update(objective=self._update(state, batch, random, means))
            state.epoch_updates += 1
            if control.stop_requested:
                raise StopRequested
        return means.metrics("train")

    @torch.no_grad()
    def validate(self, state: MetaTrainingState) -> dict[str, float]:
        """Compute the metrics on held-out trajectories, with the EMA of the weights of the generative optimizer.

        The pairs and the examples are the same in every epoch. With a curriculum, metrics that begin with `val_stage`
        are those of the pairs of its present stage.
        """
        everything = list(range(len(self.held_out)))
        metrics = self._validated(state, everything, "val")
        if state.curriculum is not None:
            metrics |= self._validated(state, _pairs_of(self.held_out, everything, state.curriculum.stage), "val_stage")
        return metrics

    def result(self, curriculum: Curriculum, metrics: Mapping[str, float]) -> float | None:
        """The metric of the curriculum, on the pairs of its present stage."""
        return metrics.get(f"val_stage_{curriculum.config.metric}")

    def _validated(self, state: MetaTrainingState, pairs: Sequence[int], prefix: str) -> dict[str, float]:
        means = _Means({})
        count = min(_VALIDATION_PAIRS, len(pairs))
        order = [pairs[index] for index in torch.linspace(0, len(pairs) - 1, count).long().tolist()]
        for batch in pair_batches(self.held_out, order, self.config.batch_size):
            random = generator(self.config.seed)
            means.add(self._score(state.predictor, self.held_out, batch, _VALIDATION_EXAMPLES, random))
        return means.metrics(prefix)

    def _order(self, epoch: int, curriculum: Curriculum | None = None) -> list[int]:
        """The indices of the pairs of an epoch, shuffled. They depend only on random seed, epoch and stage."""
        order = torch.randperm(len(self.training), generator=generator(self.config.seed, epoch)).tolist()
        if curriculum is not None:
            order = _pairs_of(self.training, order, curriculum.stage)
        return order[: self.config.pairs_per_epoch or None]

    def _update(self, state: MetaTrainingState, batch: "PairBatch", random: torch.Generator, means: "_Means") -> float:
        """Run one update; returns the objective.

        This is a separate method, so that the large tensors of an update are freed before the next batch is read.
        """
        scores = self._score(state.model, self.training, batch, self.config.task_batch, random)
        objective = scores.objective.mean()
        state.update(objective)
        means.add(scores)
        return objective.item()

    def _score(
        self,
        model: GenerativeOptimizer,
        dataset: WeightTrajectoryDataset,
        batch: "PairBatch",
        example_count: int,
        random: torch.Generator,
    ) -> PredictionScores:
        pairs = WeightPair(*(move(field, self.device) for field in dataset.batch(batch.indices)))
        layout = dataset.trajectories[dataset.pairs[batch.indices[0]].trajectory].layout
        predicted = model.generate(pairs.history, pairs.t_history, pairs.t_end, layout)
        problem = self.problems.get(batch.problem)
        examples = problem.sample("meta", example_count, random) if problem else None
        return score_predictions(predicted, pairs, layout, self.coefficients, problem, examples)


class PairBatch(NamedTuple):
    """The indices of pairs with the same problem (task and network), and the key of the problem."""

    problem: str
    indices: list[int]


def pair_batches(dataset: WeightTrajectoryDataset, order: Sequence[int], batch_size: int) -> Iterator[PairBatch]:
    """Group pairs of the same problem into batches, in the given order; incomplete batches come last."""
    problems = [problem_key(trajectory) for trajectory in dataset.trajectories]
    pending: dict[str, list[int]] = defaultdict(list)
    for index in order:
        problem = problems[dataset.pairs[index].trajectory]
        pending[problem].append(index)
        if len(pending[problem]) == batch_size:
            yield PairBatch(problem, pending.pop(problem))
    yield from (PairBatch(problem, indices) for problem, indices in pending.items())


def _pairs_of(dataset: WeightTrajectoryDataset, order: Iterable[int], stage: StageConfig) -> list[int]:
    """The indices of the pairs that keep the bounds of a stage, in the given order."""
    return [index for index in order if _is_in(stage, *_extent(dataset, index))]


def _is_in(stage: StageConfig, horizon: float, weights: int) -> bool:
    short = stage.horizon is None or horizon <= stage.horizon
    return short and (stage.weights is None or weights <= stage.weights)


def _extent(dataset: WeightTrajectoryDataset, index: int) -> tuple[float, int]:
    """The horizon of a pair [steps] and the size of its network [weights]."""
    pair = dataset.pairs[index]
    trajectory = dataset.trajectories[pair.trajectory]
    return trajectory.steps[pair.end] - trajectory.steps[pair.start], trajectory.layout.size


def recorded_averaging(config: TrainOptimizerConfig) -> float:
    """EMA decay of the weights in the first trajectory of the first run name; 0 without averaging.

    Raises:
        TrajectoryError: there is no trajectory with this run name.
    """
    return find_trajectories(config.trajectory_dir / config.run_names[0])[0].averaging


def _parts(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The segments of all trajectories: the pairs of a segment belong to one network."""
    return [part for trajectory in trajectories for part in trajectory.parts()]


def _names(trajectories: Sequence[Trajectory]) -> list[str]:
    return list(dict.fromkeys(each.name for each in trajectories))


def _check_averaging(trajectory: Trajectory, averaging: float) -> None:
    if (recorded := trajectory.averaging) != averaging:
        raise TrajectoryError(
            f"{trajectory.folder} has averaging {recorded:g}, but the optimizer expects {averaging:g} (EMA decay "
            "of the weights in the snapshots; 0: no averaging). Use trajectories that all have the same averaging. "
            "Without its option `averaging`, the optimizer expects that of the first trajectory"
        )


def _problems(
    trajectories: list[Trajectory], config: TrainOptimizerConfig, device: torch.device, trusted_names: Collection[str]
) -> dict[str, InnerProblem]:
    problems: dict[str, InnerProblem] = {}
    for trajectory in trajectories:
        if (key := problem_key(trajectory)) not in problems:
            problems[key] = InnerProblem.from_trajectory(
                trajectory,
                config.data_dir,
                trusted=config.trust_config,
                trusted_names=trusted_names,
                device=device,
            )
    return problems


class _Means:
    """Accumulates scores and computes their means.

    Args:
        values: the scores so far by name; new ones are added to it.
    """

    def __init__(self, values: dict[str, list[float]]) -> None:
        self._values = values

    def add(self, scores: PredictionScores) -> None:
        self._add("objective", scores.objective)
        self._add("relative_error", scores.relative_error)
        if scores.log_loss_change is not None:
            self._add("log_loss_change", scores.log_loss_change)

    def _add(self, name: str, scores: Tensor) -> None:
        self._values.setdefault(name, []).extend(scores.tolist())

    def metrics(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}_{name}": fmean(values) for name, values in self._values.items()}
