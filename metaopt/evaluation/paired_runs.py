"""Paired runs: training runs with the same initial weights, batches and measurement steps, but different optimizers."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..adapters.fine_tuning import FineTuning
from ..core.config import Range
from ..core.devices import find_device
from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import generator, isolated, seed_torch
from ..generative.base import GenerativeOptimizer
from ..nowcast.optimizer import Nowcast
from ..nowcast.reestimation import reestimate_batchnorm
from ..optimizers import evaluation_mode, optimizer_for
from ..recording.training import train_steps
from ..targets import get_target_model, names_code, target_config
from ..tasks import Batch, Task
from ..tasks.measure import batches_of, check_network, example_losses, mean_loss
from ..weights.layout import Layout
from .code_digest import code_digest
from .config import EvaluateConfig
from .results import Curve, Point, label

OptimizerFactory = Callable[["RunSetup", nn.Module], torch.optim.Optimizer]
"""Constructs the optimizer of a run from its setup and its network."""

NOWCAST_EMA_DECAY = 0.98
"""EMA decay in runs with nowcasts, unless the generative optimizer predicts an EMA with its own decay."""

log = logging.getLogger(__name__)

_OPTION = (bool, int, float, str, list, tuple)  # what JSON has
_BATCHNORM_BATCHES = 8  # training batches from which the BatchNorm statistics are estimated


class Observer(Protocol):
    """Callback that receives the weights of a run at every step. Training time excludes the time of the callback."""

    def __call__(self, step: int, weights: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Process the weights before the first step (step 0) and after each step."""


class RunSetup:
    """The setup shared by paired runs with the same random seed and the same learning rate.

    It defines the initial weights, which of them are trained, the batches, the measurements and the device.

        setup = RunSetup(config, load_task(config.task), seed=1000)
        curve = train_contender(setup, "hold")

    Args:
        rate: learning rate, or a range from which it is drawn with the random seed; by default the first learning rate
            in the configuration.
        tuning: that of another setup of the configuration, so that its initial weights are not read again.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        task: Task,
        seed: int,
        rate: Range | None = None,
        tuning: FineTuning | None = None,
    ) -> None:
        self.config, self.task, self.seed, self.device = config, task, seed, find_device(config.device)
        self.rate = config.rates[0] if rate is None else rate
        self.lr = _draw(self.rate, seed)
        self.batchnorm_batches = [
            task.sample("train", config.batch_size, generator(seed, 2, k)).to(self.device)
            for k in range(_BATCHNORM_BATCHES)
        ]
        self.tuning = FineTuning(config, self._network) if tuning is None else tuning
        with isolated():
            self._model = self.build(torch.channels_last)  # without training, convolutions are twice as fast
        check_network(self._model, task)
        self.layout = Layout.of(self._model)

    def build(self, memory_format: torch.memory_format = torch.preserve_format) -> nn.Module:
        """Build the network with the initial weights of this random seed, which are equal on every device.

        Seeds PyTorch's global random generators.

        Args:
            memory_format: order of the weights of convolutions in memory; not for convolutions of three dimensions.
        """
        seed_torch(self.seed)
        model = self.tuning.prepare(self._network())
        if any(weights.dim() == 5 for weights in model.parameters()):  # `channels_last` is for four dimensions
            memory_format = torch.preserve_format
        return model.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]  # torch's types lack it

    def _network(self) -> nn.Module:
        options = target_config(self.config.target_model, self.task.model_facts, self.config.target_options)
        return get_target_model(self.config.target_model, **options)

    def batches(self) -> Iterator[Batch]:
        """Yield training batches, epoch by epoch. The iterator is infinite."""
        for epoch in count():
            yield from self.task.batches(self.config.batch_size, self.seed, epoch)

    def base_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the base optimizer for the trainable parameters of a network.

        Raises:
            UnknownName: there is no base optimizer of this name.
            InvalidConfig: the base optimizer does not accept its options.
        """
        options = self.config.base_optimizer_options
        return optimizer_for(model, self.config.base_optimizer, self.lr, options)

    @cached_property
    def code(self) -> str:
        """A digest of the code of the network, the task and the base optimizer."""
        target = self.config.target_model
        built_by = [sys.modules[target.partition(":")[0]]] if names_code(target) else []
        optimizer = self.base_optimizer(self._model)
        return code_digest(*built_by, type(self.task), type(optimizer), *map(type, self._model.modules()))

    def rule(self, method: OptimizerFactory) -> dict[str, Any]:
        """What tells one training rule from another: a digest of its code, and the values of its options."""
        optimizer = method(self, self._model)
        options = {name: value for name, value in optimizer.defaults.items() if isinstance(value, _OPTION)}
        return {"rule code": code_digest(type(optimizer)), "rule options": options}

    def nowcast_optimizer(self, model: nn.Module, optimizer: GenerativeOptimizer, *, guarded: bool = True) -> Nowcast:
        """Wrap the base optimizer in `Nowcast`, with an EMA of the weights.

        Args:
            guarded: whether a guard accepts or rejects the forecasts.
        """
        nowcast = Nowcast(
            self.base_optimizer(model),
            model,
            optimizer,
            policy=self.config.policy,
            ema=None if optimizer.averaging else NOWCAST_EMA_DECAY,
            guard=(lambda: example_losses(model, self.task, self.guard_batches(nowcast.steps))) if guarded else None,
            reestimate=lambda: reestimate_batchnorm(model, self.batchnorm_batches),
            max_overhead=None,
        )
        return nowcast

    def guard_batches(self, step: int) -> Iterator[Batch]:
        """Yield batches of the examples on which the guard measures losses.

        All forecasts of one nowcast are compared on the same examples. Each nowcast draws its own examples, because
        repeated selection on the same few examples would overfit to them. The examples come from the splits "guard" and
        "meta". The run uses these splits neither for training nor for the validation loss.
        """
        guard, meta = self.task.splits["guard"], self.task.splits["meta"]
        order = torch.randperm(len(guard) + len(meta), generator=generator(self.seed, 1, step))
        for indices in order[: self.config.guard_batch].split(self.task.rows_at_once):
            in_guard = indices < len(guard)
            for examples, rows in ((guard, indices[in_guard]), (meta, indices[~in_guard] - len(guard))):
                if len(rows):
                    yield examples[rows]

    def validation_loss(self, weights: Float[Tensor, " weights"]) -> float:
        """Compute the mean loss over the whole validation split.

        The BatchNorm statistics are re-estimated for these weights, for every contender. Running statistics lag behind
        the weights: if they were re-estimated only after nowcasts, contenders with nowcasts would have an advantage.

        Args:
            weights: the trainable weights as a flat vector.
        """
        self.layout.write(self._model, weights)
        reestimate_batchnorm(self._model, self.batchnorm_batches)
        return mean_loss(self._model, self.task, batches_of(self.task.splits["validation"], self.task, self.device))


def train_contender(
    setup: RunSetup,
    contender: str,
    method: OptimizerFactory | GenerativeOptimizer = RunSetup.base_optimizer,
    observer: Observer | None = None,
    bar: Progress = NO_PROGRESS,
) -> Curve:
    """Train one contender for the number of steps in the configuration.

    If the training diverges, the remaining losses of the curve are NaN.

    Args:
        contender: name of the contender in the curve.
        method: constructs the optimizer; or a generative optimizer, which adds nowcasts to the base optimizer.
        observer: callback that receives the weights at every step.
        bar: progress bar, updated after every step.
    """
    points: list[Point] = []
    with isolated():
        model = setup.build()
        optimizer = (
            setup.nowcast_optimizer(model, method) if isinstance(method, GenerativeOptimizer) else method(setup, model)
        )
        setup.tuning.limit(model, optimizer)
        try:
            for step, seconds in timed_steps(setup, model, optimizer, setup.batches(), setup.config.steps, bar):
                measured = setup.config.measured_at(step)
                if not (observer or measured):
                    continue
                with evaluation_mode(optimizer):
                    weights = setup.layout.read(model)
                if observer:
                    observer(step, weights, optimizer)
                if measured:
                    points.append(Point(step, setup.validation_loss(weights), seconds))
        except Diverged as error:
            name = label(contender, setup.config.base_optimizer)
            log.warning("%s, random seed %d: %s; the remaining losses of its curve are NaN", name, setup.seed, error)
    points += [Point(step, math.nan, math.nan) for step in setup.config.measured_steps[len(points) :]]
    events = tuple(optimizer.events) if isinstance(optimizer, Nowcast) else ()
    return Curve(contender, setup.seed, tuple(points), events, str(setup.rate))


def _draw(rate: Range, seed: int) -> float:
    """The learning rate of a random seed."""
    return rate.at(float(torch.rand((), generator=generator(seed))))


def timed_steps(
    setup: RunSetup,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    steps: int,
    bar: Progress,
) -> Iterator[tuple[int, float]]:
    """Yield the number of completed steps, from 0 to the last step, and the training time so far [s].

    Args:
        batches: training batches, of which one is taken per step.
        steps: number of steps [count].
        bar: progress bar, updated after every step.
    Raises:
        Diverged: a training loss is not finite.
    """
    training = train_steps(model, optimizer, setup.task, batches, setup.device)
    seconds = 0.0
    yield 0, seconds
    for step in range(1, steps + 1):
        start = time.perf_counter()
        loss = next(training)
        seconds += time.perf_counter() - start
        bar.update(loss=loss)
        yield step, seconds
