"""Trainable weight averaging as a baseline: coefficients of the last snapshots, learned on training batches."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import isolated
from ..weights.layout import Layout
from ..weights.selection import trainable
from .budget_runs import BudgetRun
from .paired_runs import RunSetup
from .results import Point
from .schedules import to_zero

LEARNED = 0.1
"""Share of a budget over which *trainable averaging* learns its coefficients."""

_SNAPSHOTS = 10
_LR = 0.1  # of the coefficients; they are relative to the change between two snapshots, so it suits any network


def trainable_averaging(setup: RunSetup, bar: Progress = NO_PROGRESS) -> Iterator[Point]:
    """The base optimizer, and a branch that only combines its last snapshots at the end of each part of the budget.

    The steps of a branch are those of a training on its coefficients, so a budget counts all gradients. Snapshots are a
    stride apart, but the last one before a branch may be nearer: it is where the branch starts.

    References: Li et al. 2022, arXiv:2205.13104 (trainable weight averaging). Departs: there are coefficients for each
        tensor, which Adam learns; the learning rate and the length of a branch were the best of ten combinations.
    """
    trunk, batches = BudgetRun(setup), setup.batches()
    snapshots: deque[Tensor] = deque(maxlen=_SNAPSHOTS)
    for steps in setup.config.budgets:
        length = max(round(LEARNED * steps), 1)
        while (missing := steps - length - trunk.steps) > 0:
            trunk.train(batches, min(setup.config.stride, missing), bar)
            snapshots.append(trunk.weights())
        batches, ahead = itertools.tee(batches)
        combined = torch.stack(list(snapshots) or [trunk.weights()])
        branch = trunk.branch(to_zero(length), partial(_descent, combined))
        with isolated():  # the trunk goes on with the random numbers that it had
            branch.train(ahead, length, bar)
        yield branch.point()


def _descent(snapshots: Tensor, setup: RunSetup, model: nn.Module) -> "CombinationDescent":
    return CombinationDescent(model, setup.layout, snapshots, _LR)


class CombinationDescent(torch.optim.Optimizer):
    """Adam on the coefficients c of a combination of snapshots W_k, for each tensor: W̄ + Σ_k c_k (W_{k+1} − W_k).

    The coefficients start at zero, and the network at the mean W̄ of the snapshots.

    Args:
        model: the network.
        layout: of its trainable weights.
        snapshots: W, oldest first [count, weights].
        lr: learning rate of the coefficients.
    """

    def __init__(self, model: nn.Module, layout: Layout, snapshots: Float[Tensor, "count weights"], lr: float) -> None:
        super().__init__([weights for _, weights in trainable(model)], {"lr": lr})
        self._model, self._layout = model, layout
        self._mean, self._changes = snapshots.mean(0), list(layout.split(snapshots.diff(dim=0)))
        self._coefficients = snapshots.new_zeros(len(layout.tensors), len(snapshots) - 1)
        self._adam = torch.optim.Adam([self._coefficients], lr)
        self._write()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of Adam on the coefficients. A closure is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = self._layout.split(self._gradient())
        self._coefficients.grad = torch.stack(
            [changes @ gradient for changes, gradient in zip(self._changes, gradients, strict=True)]
        )
        self._adam.param_groups[0]["lr"] = self.param_groups[0]["lr"]  # which a scheduler changes
        self._adam.step()
        self._write()
        return loss

    def _gradient(self) -> Float[Tensor, " weights"]:
        """The gradient of the network, flat; zero for weights that the loss does not depend on."""
        weights = self.param_groups[0]["params"]
        return self._layout.join([torch.zeros_like(each) if each.grad is None else each.grad for each in weights])

    def _write(self) -> None:
        """Write the combination into the network."""
        moved = [row @ changes for row, changes in zip(self._coefficients, self._changes, strict=True)]
        self._layout.write(self._model, self._mean + torch.cat(moved))
