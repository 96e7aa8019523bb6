"""The inner loop of online meta-training: many short trainings of one problem, batched over networks."""

from collections.abc import Iterator
from itertools import count

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..nowcast.policy import NowcastPolicy, accepts, tolerates
from ..tasks import Batch, Task
from ..weights.averaging import SHORT_DECAY, ExponentialMovingAverage
from .problem import InnerProblem

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_DIVERGED = 3.0  # times the baseline loss


class InnerTrainings:
    """Networks of one problem that train with Adam, each with batches and a learning rate of its own.

    Adam (Kingma & Ba 2014, arXiv:1412.6980), with the gradient g at step t:

        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) g²
        w ← w − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)

    It is implemented here because `torch.optim` has no learning rate per row of a tensor; a test compares the two.
    The arguments determine the trainings bit for bit.

    Args:
        problem: task and network.
        weights: initial weights of each network.
        lr: learning rate of each network.
        batch_size: examples per batch [count].
        policy: decides when to take snapshots and which weights follow a forecast.
        history: length of the history [count].
        averaging: decay of the EMA of the weights that snapshots hold; 0 for the weights themselves.
        seed: random seed of the batches.
    """

    def __init__(
        self,
        problem: InnerProblem,
        weights: Float[Tensor, "rows weights"],
        lr: Float[Tensor, " rows"],
        *,
        batch_size: int,
        policy: NowcastPolicy,
        history: int,
        averaging: float,
        seed: int,
    ) -> None:
        self.problem = problem
        self.policy = policy
        self.weights = weights.clone()
        self.average = ExponentialMovingAverage(averaging)
        self.short_average = ExponentialMovingAverage(SHORT_DECAY)
        self.step = 0
        self.diverged = torch.zeros(len(weights), dtype=torch.bool)
        self._lr = lr.unsqueeze(1)
        self._mean, self._mean_square = torch.zeros_like(weights), torch.zeros_like(weights)
        self._batches = _endless_batches(problem.task, batch_size, seed)
        self._history = self.weights.unsqueeze(1).repeat(1, history, 1)
        self._times = torch.zeros(len(weights), history)

    @property
    def averaged(self) -> Float[Tensor, "rows weights"]:
        """The EMA of the weights; before the first step, the weights."""
        return self._value(self.average)

    def history(self) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """The latest snapshots and their times [steps]; copies of the initial weights fill a short history."""
        return self._history, self._times  # never modified in place

    def advance(self, steps: int) -> None:
        """Train every network for a number of steps."""
        for _ in range(steps):
            self._take_step()
            if self.policy.snapshot_due(self.step):
                self._history = torch.cat([self._history[:, 1:], self.averaged.unsqueeze(1)], 1)
                self._times = torch.cat([self._times[:, 1:], torch.full((len(self.weights), 1), float(self.step))], 1)

    def accept(self, forecast: Float[Tensor, "rows weights"], examples: Batch) -> Bool[Tensor, " rows"]:
        """The rows whose forecast the policy accepts; never a training that diverged.

        Args:
            examples: the guard's examples.
        """
        before, after = (self.problem.example_losses(each, examples) for each in (self.averaged, forecast))
        return accepts(before, after) & ~self.diverged

    def follow(
        self, accepted: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"], examples: Batch
    ) -> Bool[Tensor, " rows"]:
        """Add the predicted change of the EMA to the weights where the policy lets them follow, as in `Nowcast`.

        Without averaging, the weights follow every accepted forecast.

        Args:
            accepted: the rows whose forecast is accepted.
            change: predicted change of each row; used for the rows that follow [raw units].
            examples: the guard's examples.
        Returns: the rows that followed.
        """
        followed = accepted
        if self.average.decay:
            short = self._value(self.short_average)
            before, after = (self.problem.example_losses(each, examples) for each in (short, short + change))
            followed = accepted & self._keeps_direction() & tolerates(before, after)
        self.shift(followed, change)
        return followed

    def shift(self, rows: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"]) -> None:
        """Add a change to the weights, averages and histories of some rows; Adam's moments stay.

        Args:
            rows: the rows to change.
            change: change of each row; used for `rows` [raw units].
        """
        change = torch.where(rows.unsqueeze(1), change, 0.0)
        self.weights = self.weights + change
        self.average.shift(0, change)
        self.short_average.shift(0, change)
        self._history = self._history + change.unsqueeze(1)

    def _value(self, average: ExponentialMovingAverage) -> Float[Tensor, "rows weights"]:
        return (average.tensors[0] if average.updates else self.weights).clone()

    def _keeps_direction(self) -> Bool[Tensor, " rows"]:
        so_far = self._history[:, -(self.step // self.policy.stride + 1) :]
        return self.policy.goes_straight(so_far, self._history.shape[1], self.average.decay)

    def _take_step(self) -> None:
        batches = [next(self._batches) for _ in range(len(self.weights))]
        inputs, labels = (torch.stack(each) for each in zip(*batches, strict=True))
        weights = self.weights.requires_grad_()
        losses = self.problem.losses_each(weights, Batch(inputs, labels))
        (gradient,) = torch.autograd.grad(losses.sum(), weights)
        self.weights = weights.detach()
        limit = _DIVERGED * self.problem.task.baseline_loss
        self.diverged |= ~(losses.detach() < limit) | ~gradient.isfinite().all(1)
        gradient[self.diverged] = 0.0
        self.step += 1
        self._mean.lerp_(gradient, 1 - _BETAS[0])
        self._mean_square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._mean / (1 - _BETAS[0] ** self.step)
        root_mean_square = (self._mean_square / (1 - _BETAS[1] ** self.step)).sqrt()
        lr = self._lr * ~self.diverged.unsqueeze(1)
        self.weights = self.weights - lr * mean / (root_mean_square + _EPSILON)
        self.average.update([self.weights])
        self.short_average.update([self.weights])


def _endless_batches(task: Task, batch_size: int, seed: int) -> Iterator[Batch]:
    """Training batches of equal size, epoch after epoch; the whole split if it is smaller than a batch."""
    size = min(batch_size, len(task.splits["train"]))
    for epoch in count():
        for batch in task.batches(size, seed, epoch):
            if len(batch.inputs) == size:
                yield batch
