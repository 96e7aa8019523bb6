"""Trainings that share initial weights, batches and points of measurement, and differ only in what is compared."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import Diverged
from ..nowcast import Nowcast, reestimate_batchnorm
from ..optimizers.base import GenerativeOptimizer
from ..targets import get_target_model, target_config
from ..tasks import Batch, Examples, Task
from ..tasks.base import generator
from ..training.loop import base_optimizer, train_steps
from ..weights.layout import Layout, trainable
from .config import EvaluateConfig
from .results import Curve, Point

Watch = Callable[[int, nn.Module], None]
"""Called with the number of steps done and the network: before the first step and after each."""

log = logging.getLogger(__name__)

_BATCHNORM_BATCHES = 8
_EMA_DECAY = 0.98


class Bench:
    """Where all twins of one random seed are trained and measured."""

    def __init__(self, config: EvaluateConfig, task: Task, seed: int) -> None:
        self.config, self.task, self.seed = config, task, seed
        self.lr = config.lr.at(float(torch.rand((), generator=generator(seed))))
        guarding = Examples(*task.sample("guard", config.guard_batch, generator(seed, 1)))
        self.guard_batches = list(guarding.in_order(task.rows_at_once))
        self.statistics_batches = [
            task.sample("train", config.batch_size, generator(seed, 2, k)) for k in range(_BATCHNORM_BATCHES)
        ]
        with torch.random.fork_rng(devices=[]):
            self._scratch = self.build()
        self.layout = Layout.of(self._scratch)

    def build(self) -> nn.Module:
        """The target, with the initial weights of this random seed; the global random state starts there, too."""
        options = target_config(self.config.target_model, self.task.model_facts, self.config.target_options)
        torch.manual_seed(self.seed)
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
        parameters = [parameter for _, parameter in trainable(model)]
        return base_optimizer(self.config.base_optimizer, parameters, self.lr, self.config.base_optimizer_options)

    def nowcasting(self, model: nn.Module, optimizer: GenerativeOptimizer) -> Nowcast:
        """The base optimizer with a guarded nowcast every so often."""
        return Nowcast(
            self.base_optimizer(model),
            model,
            optimizer,
            every=self.config.every,
            stride=self.config.stride,
            guard=lambda: mean_loss(self.task, model, self.guard_batches),
            reestimate=lambda: reestimate_batchnorm(model, self.statistics_batches),
        )

    def loss_of(self, weights: Float[Tensor, " weights"]) -> float:
        """Mean loss of flat weights over the whole validation split.

        BatchNorm statistics are estimated for these weights, whoever made them: the base optimizer's running ones lag
        behind, and the contender that has fresh ones after a nowcast would win by that alone.
        """
        self.layout.write(self._scratch, weights)
        reestimate_batchnorm(self._scratch, self.statistics_batches)
        return mean_loss(self.task, self._scratch, self.task.splits["validation"].in_order(self.task.rows_at_once))


def train_twin(
    bench: Bench, contender: str, optimizer: GenerativeOptimizer | None = None, watch: Watch | None = None
) -> Curve:
    """Train one contender for the whole budget.

    Args:
        optimizer: nowcasts with it; the base optimizer alone where there is none.
        watch: sees every step; neither its time nor that of the measurements counts as training time.
    Raises:
        Diverged: a training loss is not finite, and there is no nowcast to blame. With one, the rest of the curve is
            not a number, and the comparison goes on.
    """
    points: list[Point] = []
    with torch.random.fork_rng(devices=[]):
        model = bench.build()
        mover = bench.base_optimizer(model) if optimizer is None else bench.nowcasting(model, optimizer)
        try:
            for step, seconds in _timed_steps(bench, model, mover):
                if watch:
                    watch(step, model)
                if bench.config.measured_at(step):
                    points.append(Point(step, bench.loss_of(bench.layout.read(model)), seconds))
        except Diverged as error:
            if optimizer is None:
                raise
            log.warning("%s, random seed %d: %s; the rest of its curve is empty", contender, bench.seed, error)
    measured = filter(bench.config.measured_at, range(bench.config.steps + 1))
    points += [Point(step, math.nan, math.nan) for step in list(measured)[len(points) :]]
    return Curve(contender, bench.seed, tuple(points), tuple(mover.events) if isinstance(mover, Nowcast) else ())


def _timed_steps(bench: Bench, model: nn.Module, mover: torch.optim.Optimizer) -> Iterator[tuple[int, float]]:
    """Steps done, from zero to the whole budget, and the time that they took together [s]."""
    training = train_steps(model, mover, bench.task, bench.batches(), torch.device("cpu"))
    seconds = 0.0
    yield 0, seconds
    for step in range(1, bench.config.steps + 1):
        started = time.perf_counter()
        next(training)
        seconds += time.perf_counter() - started
        yield step, seconds


class Witness:
    """Watches the hold twin: keeps its snapshots, and measures the running average (EMA) of its weights.

    The average is over 50 steps (decay 0.98), and over fewer near the start, where it would otherwise hold on to the
    initial weights and be too easy to beat.
    """

    def __init__(self, bench: Bench) -> None:
        self.snapshots: dict[int, Tensor] = {}
        self.average_losses: list[float] = []
        self._bench = bench
        self._average = torch.zeros(bench.layout.size)

    def __call__(self, step: int, model: nn.Module) -> None:
        """Take in the weights after a step."""
        weights = self._bench.layout.read(model)
        if step % self._bench.config.stride == 0:
            self.snapshots[step] = weights
        self._average.lerp_(weights, 1 - min(_EMA_DECAY, step / (9 + step)))
        if self._bench.config.measured_at(step):
            self.average_losses.append(self._bench.loss_of(self._average))

    def average_curve(self, contender: str, hold: Curve) -> Curve:
        """The running average as a contender; its time is the hold twin's, for averaging costs next to nothing."""
        points = (point._replace(loss=loss) for point, loss in zip(hold.points, self.average_losses, strict=True))
        return Curve(contender, hold.seed, tuple(points))


@torch.no_grad()
def mean_loss(task: Task, model: nn.Module, batches: Iterable[Batch]) -> float:
    """Mean loss over examples of a network in evaluation mode; its mode is then what it was."""
    training = model.training
    model.eval()
    total, examples = 0.0, 0
    for inputs, labels in batches:
        total += float(task.loss(model(inputs), labels)) * len(inputs)
        examples += len(inputs)
    model.train(training)
    return total / examples
