"""Many short inner trainings of one problem at once, as live ground for meta-training."""

from collections.abc import Iterator
from itertools import count

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..nowcast.policy import STRAIGHT, goes_straight
from ..tasks import Batch, Task
from ..weights.averaging import SHORT
from .problem import InnerProblem

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_DIVERGED = 3.0  # times the baseline loss; what is worse has nothing to teach


class InnerTrainings:
    """A cohort: networks of one problem that train side by side with Adam, each with its own batches and learning rate.

    What it does depends on its arguments alone. Adam (Kingma & Ba 2014, arXiv:1412.6980) is written out here because
    the rows have learning rates of their own, which `torch.optim` cannot have in one tensor; a test compares the two.

    Args:
        problem: the task and the network.
        weights: where each network starts.
        lr: learning rates.
        batch_size: examples in a batch [count].
        stride: steps between the snapshots that are kept [steps].
        history: how many of them are kept [count].
        averaging: decay of the running average of the weights, of which snapshots are kept; 0 for the weights.
        seed: random seed of the batches.
    """

    def __init__(
        self,
        problem: InnerProblem,
        weights: Float[Tensor, "rows weights"],
        lr: Float[Tensor, " rows"],
        *,
        batch_size: int,
        stride: int,
        history: int,
        averaging: float,
        seed: int,
    ) -> None:
        self.problem = problem
        self.stride = stride
        self.weights = weights.clone()
        self.averaged = weights.clone()
        self.recent = weights.clone()
        self.step = 0
        self.diverged = torch.zeros(len(weights), dtype=torch.bool)
        self._lr = lr.unsqueeze(1)
        self._averaging = averaging
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)
        self._batches = _endless(problem.task, batch_size, seed)
        self._history = self.weights.unsqueeze(1).repeat(1, history, 1)
        self._times = torch.zeros(len(weights), history)

    def past(self) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """The last snapshots and their times; the present ones stand for those that do not exist."""
        return self._history, self._times  # replaced as they grow, never written to

    def advance(self, steps: int) -> None:
        """Train every network for some steps."""
        for _ in range(steps):
            self._take_step()
            if self.step % self.stride == 0:
                self._history = torch.cat([self._history[:, 1:], self.averaged.unsqueeze(1)], 1)
                self._times = torch.cat([self._times[:, 1:], torch.full((len(self.weights), 1), float(self.step))], 1)

    def follow(
        self,
        advised: Bool[Tensor, " rows"],
        change: Float[Tensor, "rows weights"],
        seen: Batch,
        straight: float = STRAIGHT,
    ) -> Bool[Tensor, " rows"]:
        """Move networks by what their averages are predicted to move, where that is good for them, too.

        As in `Nowcast`, that is where they go straight on and a guard that looks at their short averages agrees; where
        the prediction is of the weights themselves, all follow.

        Args:
            advised: true for the rows whose prediction is good.
            change: for all rows; that of the others is ignored [raw units].
            seen: what the guard looks at.
            straight: how straight they must go, a cosine; -1 asks the guard alone [1].
        Returns: true for the rows that were moved.
        """
        followed = advised
        if self._averaging:
            followed = advised & self._go_straight(straight) & self.problem.not_worse(self.recent, change, seen)
        self.shift(followed, change)
        return followed

    def shift(self, which: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"]) -> None:
        """Move some networks with their averages and histories; Adam's moments stay.

        Args:
            which: true for the rows that are moved.
            change: for all rows; that of the others is ignored [raw units].
        """
        change = torch.where(which.unsqueeze(1), change, 0.0)
        self.weights = self.weights + change
        self.averaged = self.averaged + change
        self.recent = self.recent + change
        self._history = self._history + change.unsqueeze(1)

    def _go_straight(self, at_least: float) -> Bool[Tensor, " rows"]:
        length = self._history.shape[1]
        there = self._history[:, -(self.step // self.stride + 1) :]
        return goes_straight(there, length, self.stride, self._averaging, at_least)

    def _take_step(self) -> None:
        batches = [next(self._batches) for _ in range(len(self.weights))]
        inputs, labels = (torch.stack(each) for each in zip(*batches, strict=True))
        weights = self.weights.requires_grad_()
        losses = self.problem.losses_each(weights, Batch(inputs, labels))
        (gradient,) = torch.autograd.grad(losses.sum(), weights)
        self.weights = weights.detach()
        limit = _DIVERGED * self.problem.task.baseline_loss
        self.diverged |= ~(losses.detach() < limit) | ~gradient.isfinite().all(1)
        gradient[self.diverged] = 0.0  # they stay where they are
        self.step += 1
        self._first.lerp_(gradient, 1 - _BETAS[0])
        self._second.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._first / (1 - _BETAS[0] ** self.step)
        spread = (self._second / (1 - _BETAS[1] ** self.step)).sqrt()
        self.weights = self.weights - self._lr * ~self.diverged.unsqueeze(1) * mean / (spread + _EPSILON)
        self.averaged = self._average(self.averaged, self._averaging)
        self.recent = self._average(self.recent, SHORT)

    def _average(self, so_far: Tensor, decay: float) -> Tensor:
        """The running average with the present weights in it, corrected for its start."""
        return so_far.lerp(self.weights, (1 - decay) / (1 - decay**self.step))


def _endless(task: Task, batch_size: int, seed: int) -> Iterator[Batch]:
    """Full training batches, epoch after epoch.

    Where the split is smaller than a batch, it is taken whole.
    """
    size = min(batch_size, len(task.splits["train"]))
    for epoch in count():
        for batch in task.batches(size, seed, epoch):
            if len(batch.inputs) == size:
                yield batch
