"""Trainings that share initial weights, batches and points of measurement, and differ only in what is compared."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.config import Range
from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import generator, isolated, seed_torch
from ..generative.base import GenerativeOptimizer
from ..nowcast.model_state import reestimate_batchnorm
from ..nowcast.optimizer import Nowcast
from ..optimizers import build_optimizer, evaluation_mode
from ..recording.training import train_steps
from ..targets import get_target_model, target_config
from ..tasks import Batch, Task
from ..tasks.measure import example_losses, mean_loss
from ..weights.averaging import ExponentialMovingAverage
from ..weights.layout import Layout, trainable
from .config import EvaluateConfig
from .read_outs import READ_OUT_DECAY, READ_OUT_OF_NOWCASTS, ReadOut
from .results import Curve, Point

Rule = Callable[["RunSetup", nn.Module], torch.optim.Optimizer]
"""Gives what moves a twin's weights."""

log = logging.getLogger(__name__)

_BATCHNORM_BATCHES = 8


class Observer(Protocol):
    """Sees every step of a twin; neither its time nor that of measurements counts as training time."""

    def __call__(self, step: int, weights: Tensor, mover: torch.optim.Optimizer) -> None:
        """Take in the weights before the first step (as step 0) and after each, and what moves them."""


class RunSetup:
    """Where all twins of one random seed and one learning rate are trained and measured."""

    def __init__(self, config: EvaluateConfig, task: Task, seed: int, rate: Range | None = None) -> None:
        self.config, self.task, self.seed = config, task, seed
        self.rate = config.rates[0] if rate is None else rate
        self.lr = self.rate.at(float(torch.rand((), generator=generator(seed))))
        self.statistics_batches = [
            task.sample("train", config.batch_size, generator(seed, 2, k)) for k in range(_BATCHNORM_BATCHES)
        ]
        with isolated():
            self._scratch = self.build()
        self.layout = Layout.of(self._scratch)

    def build(self) -> nn.Module:
        """The target, with the initial weights of this random seed; the global random state starts there, too."""
        options = target_config(self.config.target_model, self.task.model_facts, self.config.target_options)
        seed_torch(self.seed)
        return get_target_model(self.config.target_model, **options)

    def batches(self) -> Iterator[Batch]:
        """Training batches, epoch after epoch, without end."""
        for epoch in count():
            yield from self.task.batches(self.config.batch_size, self.seed, epoch)

    def base_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The base optimizer over a network's trainable weights.

        Raises:
            InvalidConfig: torch.optim does not have it, or it does not take its options.
        """
        options = self.config.base_optimizer_options
        return build_optimizer(self.config.base_optimizer, self.weights_of(model), self.lr, options)

    def weights_of(self, model: nn.Module) -> list[nn.Parameter]:
        """A network's trainable weights."""
        return [parameter for _, parameter in trainable(model)]

    def nowcasting(self, model: nn.Module, optimizer: GenerativeOptimizer) -> Nowcast:
        """The base optimizer with a guarded nowcast every so often, and a running average."""
        nowcast = Nowcast(
            self.base_optimizer(model),
            model,
            optimizer,
            policy=self.config.policy,
            ema=None if optimizer.averaging else READ_OUT_DECAY,
            guard=lambda: example_losses(model, self.task, self.guard_batches(nowcast.steps)),
            reestimate=lambda: reestimate_batchnorm(model, self.statistics_batches),
        )
        return nowcast

    def guard_batches(self, step: int) -> Iterator[Batch]:
        """What the guard looks at: the same examples for all that is proposed at a step, others at the next nowcast.

        Always the same few would be learned by heart by choosing alone: a training has dozens of choices. They come
        from both splits that neither train nor judge a twin.
        """
        guard, meta = self.task.splits["guard"], self.task.splits["meta"]
        order = torch.randperm(len(guard) + len(meta), generator=generator(self.seed, 1, step))
        for drawn in order[: self.config.guard_batch].split(self.task.rows_at_once):
            of_guard = drawn < len(guard)
            for examples, rows in ((guard, drawn[of_guard]), (meta, drawn[~of_guard] - len(guard))):
                if len(rows):
                    yield examples[rows]

    def loss_of(self, weights: Float[Tensor, " weights"]) -> float:
        """Mean loss of flat weights over the whole validation split.

        BatchNorm statistics are estimated for these weights, whoever made them: the base optimizer's running ones lag
        behind, and the contender that has fresh ones after a nowcast would win by that alone.
        """
        self.layout.write(self._scratch, weights)
        reestimate_batchnorm(self._scratch, self.statistics_batches)
        return mean_loss(self._scratch, self.task, self.task.splits["validation"].in_order(self.task.rows_at_once))


def train_contender(
    setup: RunSetup,
    contender: str,
    rule: Rule | GenerativeOptimizer = RunSetup.base_optimizer,
    watch: Observer | None = None,
    bar: Progress = NO_PROGRESS,
) -> Curve:
    """Train one contender for the whole budget. Where it diverges the rest of its curve is not a number.

    Args:
        rule: what moves the weights; a generative optimizer nowcasts with the base optimizer in between.
        watch: sees every step.
        bar: is told of every step.
    """
    points: list[Point] = []
    with isolated():
        model = setup.build()
        mover = setup.nowcasting(model, rule) if isinstance(rule, GenerativeOptimizer) else rule(setup, model)
        try:
            for step, seconds in _timed_steps(setup, model, mover, bar):
                measured = setup.config.measured_at(step)
                if not (watch or measured):
                    continue
                with evaluation_mode(mover):
                    weights = setup.layout.read(model)
                if watch:
                    watch(step, weights, mover)
                if measured:
                    points.append(Point(step, setup.loss_of(weights), seconds))
        except Diverged as error:
            log.warning("%s, random seed %d: %s; the rest of its curve is empty", contender, setup.seed, error)
    points += [Point(step, math.nan, math.nan) for step in setup.config.measured[len(points) :]]
    events = tuple(mover.events) if isinstance(mover, Nowcast) else ()
    return Curve(contender, setup.seed, tuple(points), events, str(setup.rate))


def _timed_steps(
    setup: RunSetup, model: nn.Module, mover: torch.optim.Optimizer, bar: Progress
) -> Iterator[tuple[int, float]]:
    """Steps done, from zero to the whole budget, and the time that they took together [s]."""
    training = train_steps(model, mover, setup.task, setup.batches(), torch.device("cpu"))
    seconds = 0.0
    yield 0, seconds
    for step in range(1, setup.config.steps + 1):
        started = time.perf_counter()
        loss = next(training)
        seconds += time.perf_counter() - started
        bar.update(loss=loss)
        yield step, seconds


class HoldObserver:
    """Watches a twin without nowcasts: keeps snapshots, and measures what is read out of it.

    Args:
        readouts: what is read out, by name.
        averaging: decay of the running average that snapshots are of; 0 for the weights themselves.
    """

    def __init__(
        self, setup: RunSetup, readouts: Mapping[str, Callable[[], ReadOut]], *, averaging: float = 0.0
    ) -> None:
        self.snapshots: dict[int, Tensor] = {}
        self._bench = setup
        self._average = ExponentialMovingAverage(averaging)
        self._readouts = {name: make() for name, make in readouts.items()}
        self._losses: dict[str, list[float]] = {name: [] for name in readouts}

    def __call__(self, step: int, weights: Tensor, mover: torch.optim.Optimizer) -> None:
        """Take in the weights after a step."""
        if step:
            self._average.update([weights])
        snapshot = step % self._bench.config.stride == 0
        if snapshot:
            self.snapshots[step] = self._average.tensors[0].clone() if step else weights
        for name, readout in self._readouts.items():
            readout.take(weights, snapshot)
            if self._bench.config.measured_at(step):
                self._losses[name].append(self._bench.loss_of(readout.read()))

    def curves(self, watched: Curve) -> list[Curve]:
        """What is read out as contenders; their time is the watched twin's, for reading costs next to nothing."""
        return [_read_out(watched, name, losses) for name, losses in self._losses.items()]


class AverageObserver:
    """Watches a nowcasting twin: measures the running average that it keeps."""

    def __init__(self, setup: RunSetup) -> None:
        self._bench = setup
        self._losses: list[float] = []

    def __call__(self, step: int, weights: Tensor, mover: torch.optim.Optimizer) -> None:
        """Look at the average after a step."""
        assert isinstance(mover, Nowcast)
        if self._bench.config.measured_at(step):
            with mover.averaged_weights() as model:
                averaged = self._bench.layout.read(model)
            self._losses.append(self._bench.loss_of(averaged))

    def curve(self, watched: Curve) -> Curve:
        """The average as a contender."""
        return _read_out(watched, READ_OUT_OF_NOWCASTS, self._losses)


def _read_out(watched: Curve, name: str, losses: list[float]) -> Curve:
    padded = losses + [math.nan] * (len(watched.points) - len(losses))
    points = (point._replace(loss=loss) for point, loss in zip(watched.points, padded, strict=True))
    return replace(watched, contender=name, points=tuple(points), events=())
