"""Schedules of the learning rate as baselines: each part of the budget has a schedule of its own length.

A schedule that ends at zero is at its best at its end, so a curve of one training for the whole budget says nothing
about shorter budgets. The curves here have losses only at the ends: at a quarter, a half, three quarters and the whole.
"""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import isolated
from ..optimizers import evaluation_mode
from ..tasks import Batch
from .paired_runs import RunSetup, timed_steps
from .results import Curve, Point

_Schedule = Callable[[torch.optim.Optimizer], LRScheduler]

DECAY = 0.2
"""Share of a budget over which *linear decay* lowers the learning rate to zero."""

log = logging.getLogger(__name__)


def cosine(setup: RunSetup, bar: Progress = NO_PROGRESS) -> Iterator[Point]:
    """Cosine annealing to zero (arXiv:1608.03983): a training for each part of the budget."""
    for steps in setup.config.budgets:
        run = _Run(setup, partial(CosineAnnealingLR, T_max=steps))
        run.train(setup.batches(), steps, bar)
        yield run.point()


def linear_decay(setup: RunSetup, bar: Progress = NO_PROGRESS) -> Iterator[Point]:
    """A constant learning rate, and a branch with linear decay to zero at the end of each part of the budget.

    The trunk is one training; a branch continues it with the same batches (warm-up–stable–decay, arXiv:2405.18392).
    """
    trunk, batches = _Run(setup), setup.batches()
    for steps in setup.config.budgets:
        length = max(round(DECAY * steps), 1)
        trunk.train(batches, steps - length - trunk.steps, bar)
        batches, ahead = itertools.tee(batches)
        branch = trunk.branch(partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=length))
        branch.train(ahead, length, bar)
        yield branch.point()


SCHEDULES: Mapping[str, Callable[[RunSetup, Progress], Iterator[Point]]] = {
    "cosine": cosine,
    "linear decay": linear_decay,
}
"""Schedules by contender name."""

STEPS: Mapping[str, float] = {"cosine": 2.5, "linear decay": 1.3}
"""Steps of all trainings of a schedule, relative to the budget."""


def schedule_curve(setup: RunSetup, contender: str, bar: Progress = NO_PROGRESS) -> Curve:
    """Train a schedule; the losses of its curve are NaN but for the ends of the parts of the budget.

    Args:
        contender: a name in `SCHEDULES`.
        bar: progress bar, updated after every step.
    """
    measured: dict[int, Point] = {}
    with isolated():
        try:
            for point in SCHEDULES[contender](setup, bar):
                measured[point.step] = point
        except Diverged as error:
            log.warning(
                "%s, random seed %d: %s; the remaining losses of its curve are NaN", contender, setup.seed, error
            )
    steps = setup.config.measured_steps
    points = tuple(measured.get(step, Point(step, math.nan, math.nan)) for step in steps)
    return Curve(contender, setup.seed, points, rate=str(setup.rate))


class _Run:
    """A training whose learning rate follows a schedule."""

    def __init__(self, setup: RunSetup, schedule: _Schedule | None = None) -> None:
        self._setup, self.steps, self._seconds = setup, 0, 0.0
        self._model = setup.build()
        self._optimizer = setup.base_optimizer(self._model)
        setup.tuning.limit(self._model, self._optimizer)
        if schedule is not None:
            self._follow(schedule)

    def train(self, batches: Iterator[Batch], steps: int, bar: Progress) -> None:
        """Take some steps."""
        before = self._seconds
        for _, seconds in timed_steps(self._setup, self._model, self._optimizer, batches, steps, bar):
            self._seconds = before + seconds
        self.steps += max(steps, 0)

    def branch(self, schedule: _Schedule) -> "_Run":
        """A copy that goes on with a schedule, and leaves this training as it is."""
        with isolated():
            copied = _Run(self._setup)
        copied._model.load_state_dict(self._model.state_dict())
        copied._optimizer.load_state_dict(copy.deepcopy(self._optimizer.state_dict()))
        copied._follow(schedule)
        copied.steps, copied._seconds = self.steps, self._seconds
        return copied

    def point(self) -> Point:
        """The validation loss now."""
        with evaluation_mode(self._optimizer):
            weights = self._setup.layout.read(self._model)
        return Point(self.steps, self._setup.validation_loss(weights), self._seconds)

    def _follow(self, schedule: _Schedule) -> None:
        scheduler = schedule(self._optimizer)
        self._optimizer.register_step_post_hook(lambda *_: scheduler.step())
