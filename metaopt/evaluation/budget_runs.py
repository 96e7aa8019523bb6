"""Runs that are measured at the ends of the parts of the budget: each part has an end of its own, such as a decay.

A schedule that ends at zero is at its best at its end, so a curve of one training for the whole budget says nothing
about shorter budgets. The curves here have losses only at the ends: at a quarter, a half, three quarters and the whole.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import isolated
from ..optimizers import evaluation_mode
from ..tasks import Batch
from .paired_runs import OptimizerFactory, RunSetup, timed_steps
from .results import Curve, Point

Schedule = Callable[[torch.optim.Optimizer], LRScheduler]
"""Makes the schedule of an optimizer's learning rate; it advances with each step."""

BudgetTraining = Callable[[RunSetup, Progress], Iterator[Point]]
"""Trains for each part of the budget in turn, and yields the measurement at its end."""

log = logging.getLogger(__name__)


def budget_curve(setup: RunSetup, contender: str, training: BudgetTraining, bar: Progress = NO_PROGRESS) -> Curve:
    """Train for each part of the budget; the losses of the curve are NaN but for the ends of the parts.

    Args:
        contender: name of the contender in the curve.
        training: what is trained, and when it is measured.
        bar: progress bar, updated after every step.
    """
    measured: dict[int, Point] = {}
    with isolated():
        try:
            for point in training(setup, bar):
                measured[point.step] = point
        except Diverged as error:
            log.warning(
                "%s, random seed %d: %s; the remaining losses of its curve are NaN", contender, setup.seed, error
            )
    steps = setup.config.measured_steps
    points = tuple(measured.get(step, Point(step, math.nan, math.nan)) for step in steps)
    return Curve(contender, setup.seed, points, rate=str(setup.rate))


class BudgetRun:
    """A training with the base optimizer that can branch.

    Args:
        schedule: of the learning rate; by default it is constant.
    Attributes:
        steps: steps so far, those before a branch included [steps].
    """

    def __init__(self, setup: RunSetup, schedule: Schedule | None = None) -> None:
        self._setup, self.steps, self._seconds = setup, 0, 0.0
        self._model = setup.build()
        self._optimize(RunSetup.base_optimizer, schedule)

    def train(self, batches: Iterator[Batch], steps: int, bar: Progress) -> None:
        """Take some steps; none if `steps` is not positive."""
        before = self._seconds
        for _, seconds in timed_steps(self._setup, self._model, self._optimizer, batches, steps, bar):
            self._seconds = before + seconds
        self.steps += max(steps, 0)

    def branch(self, schedule: Schedule, optimizer: OptimizerFactory | None = None) -> "BudgetRun":
        """A copy that goes on with a schedule, and leaves this training as it is.

        Args:
            optimizer: constructs the optimizer of the copy; by default the copy goes on with the present one.
        """
        with isolated():
            copied = BudgetRun(self._setup)
        copied._model.load_state_dict(self._model.state_dict())
        if optimizer is None:
            copied._optimizer.load_state_dict(copy.deepcopy(self._optimizer.state_dict()))
            copied._follow(schedule)
        else:
            copied._optimize(optimizer, schedule)
        copied.steps, copied._seconds = self.steps, self._seconds
        return copied

    def weights(self) -> Float[Tensor, " weights"]:
        """The trainable weights now."""
        with evaluation_mode(self._optimizer):
            return self._setup.layout.read(self._model)

    def point(self) -> Point:
        """The validation loss now."""
        return Point(self.steps, self._setup.validation_loss(self.weights()), self._seconds)

    def _optimize(self, factory: OptimizerFactory, schedule: Schedule | None) -> None:
        self._optimizer = factory(self._setup, self._model)
        self._setup.tuning.limit(self._model, self._optimizer)
        if schedule is not None:
            self._follow(schedule)

    def _follow(self, schedule: Schedule) -> None:
        scheduler = schedule(self._optimizer)
        self._optimizer.register_step_post_hook(lambda *_: scheduler.step())
