"""Schedules of the learning rate as baselines: each part of the budget has a schedule of its own length."""

import itertools
from collections.abc import Iterator
from functools import partial

from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import isolated
from .budget_runs import BudgetRun, Schedule
from .paired_runs import RunSetup
from .results import Point

DECAY = 0.2
"""Share of a budget over which *linear decay* lowers the learning rate to zero."""


def cosine(setup: RunSetup, bar: Progress = NO_PROGRESS) -> Iterator[Point]:
    """Cosine annealing to zero (arXiv:1608.03983): a training for each part of the budget."""
    for steps in setup.config.budgets:
        run = BudgetRun(setup, partial(CosineAnnealingLR, T_max=steps))
        run.train(setup.batches(), steps, bar)
        yield run.point()


def linear_decay(setup: RunSetup, bar: Progress = NO_PROGRESS) -> Iterator[Point]:
    """A constant learning rate, and a branch with linear decay to zero at the end of each part of the budget.

    The trunk is one training; a branch continues it with the same batches (warm-up–stable–decay, arXiv:2405.18392).
    """
    trunk, batches = BudgetRun(setup), setup.batches()
    for steps in setup.config.budgets:
        length = max(round(DECAY * steps), 1)
        trunk.train(batches, steps - length - trunk.steps, bar)
        batches, ahead = itertools.tee(batches)
        branch = trunk.branch(to_zero(length))
        with isolated():  # the trunk goes on with the random numbers that it had
            branch.train(ahead, length, bar)
        yield branch.point()


def to_zero(steps: int) -> Schedule:
    """A learning rate that decays linearly to zero in some steps."""
    return partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=steps)
