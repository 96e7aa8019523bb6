"""The inner loop of online meta-training: many short training runs on one problem, computed as one batch."""

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
MAX_LOSS = 3.0
"""A network with a higher loss counts as diverged [multiple of the baseline loss]."""


class InnerTrainings:
    """A batch of networks that train on one problem with Adam. Each network has its own batches and learning rate.

    Adam (Kingma & Ba 2014, arXiv:1412.6980), with the gradient g at step t:

        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) g²
        w ← w − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)

    Adam is implemented here because `torch.optim.Adam` does not support a learning rate for each row of a tensor. A
    test compares both implementations. Training is deterministic: the same arguments give bitwise equal weights.

    All state is on the device of the weights; batches are drawn on the CPU and moved.

    Args:
        problem: the task and the network architecture.
        weights: initial weights of each network.
        lr: learning rate of each network.
        batch_size: examples per batch [count].
        policy: decides when to take snapshots, and which networks move their weights after an accepted forecast.
        history: number of snapshots in the history [count].
        averaging: EMA decay of the weights in the snapshots; 0 without averaging.
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
        self.diverged = torch.zeros(len(weights), dtype=torch.bool, device=weights.device)
        self._lr = lr.unsqueeze(1)
        self._exp_avg, self._exp_avg_sq = torch.zeros_like(weights), torch.zeros_like(weights)
        self._batches = _infinite_batches(problem.task, batch_size, seed)
        self._history = self.weights.unsqueeze(1).repeat(1, history, 1)
        self._times = weights.new_zeros(len(weights), history)

    @property
    def averaged(self) -> Float[Tensor, "rows weights"]:
        """The EMA of the weights; before the first step, the initial weights."""
        return self._value(self.average)

    def history(self) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """The last snapshots and their steps. A short history is padded with copies of its first snapshot."""
        return self._history, self._times  # no copies: these tensors are never modified in place

    def advance(self, steps: int) -> None:
        """Train every network for a number of steps."""
        for _ in range(steps):
            self._take_step()
            if self.policy.snapshot_due(self.step):
                self._history = torch.cat([self._history[:, 1:], self.averaged.unsqueeze(1)], 1)
                now = self._times.new_full((len(self.weights), 1), float(self.step))
                self._times = torch.cat([self._times[:, 1:], now], 1)

    def accept(self, forecast: Float[Tensor, "rows weights"], examples: Batch) -> Bool[Tensor, " rows"]:
        """Decide with the guard which forecasts are accepted. Forecasts of diverged networks are never accepted.

        Args:
            forecast: forecast of the EMA of each network [raw units].
            examples: the guard's examples.
        Returns: whether the forecast of each row is accepted.
        """
        before, after = (self.problem.example_losses(each, examples) for each in (self.averaged, forecast))
        return accepts(before, after) & ~self.diverged

    def follow(
        self, accepted: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"], examples: Batch
    ) -> Bool[Tensor, " rows"]:
        """Add the predicted change of the EMA to the weights of the rows that the policy selects, as in `Nowcast`.

        Without averaging, all rows with an accepted forecast are selected.

        Args:
            accepted: whether the forecast of each row is accepted.
            change: predicted change of each row; it is not added to rows that are not selected [raw units].
            examples: the guard's examples.
        Returns: whether each row was selected.
        """
        followed = accepted
        if self.average.decay:
            short = self._value(self.short_average)
            before, after = (self.problem.example_losses(each, examples) for each in (short, short + change))
            followed = accepted & self._has_high_cosine() & tolerates(before, after)
        self.shift(followed, change)
        return followed

    def shift(self, rows: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"]) -> None:
        """Add a change to the weights, averages and histories of some rows. Adam's moment estimates do not change.

        Args:
            rows: whether to change each row.
            change: change of each row; ignored for the other rows [raw units].
        """
        change = torch.where(rows.unsqueeze(1), change, 0.0)
        self.weights = self.weights + change
        self.average.shift([change])
        self.short_average.shift([change])
        self._history = self._history + change.unsqueeze(1)

    def _value(self, average: ExponentialMovingAverage) -> Float[Tensor, "rows weights"]:
        """The value of an EMA; before its first update, the weights."""
        return (average.tensors[0] if average.updates else self.weights).clone()

    def _has_high_cosine(self) -> Bool[Tensor, " rows"]:
        """Whether the last two displacements of the EMA have a high cosine similarity."""
        recorded = self._history[:, -(self.step // self.policy.stride + 1) :]
        return self.policy.goes_straight(recorded, self._history.shape[1], self.average.decay)

    def _take_step(self) -> None:
        batches = [next(self._batches) for _ in range(len(self.weights))]
        stacked = Batch(*(torch.stack(each) for each in zip(*batches, strict=True))).to(self.problem.device)
        weights = self.weights.requires_grad_()
        losses = self.problem.losses_each(weights, stacked)
        (gradient,) = torch.autograd.grad(losses.sum(), weights)
        self.weights = weights.detach()
        limit = MAX_LOSS * self.problem.task.baseline_loss
        self.diverged |= ~(losses.detach() < limit) | ~gradient.isfinite().all(1)
        gradient = gradient.masked_fill(self.diverged.unsqueeze(1), 0.0)
        self.step += 1
        self._exp_avg.lerp_(gradient, 1 - _BETAS[0])
        self._exp_avg_sq.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._exp_avg / (1 - _BETAS[0] ** self.step)
        denominator = (self._exp_avg_sq / (1 - _BETAS[1] ** self.step)).sqrt()
        lr = self._lr * ~self.diverged.unsqueeze(1)
        self.weights = self.weights - lr * mean / (denominator + _EPSILON)
        self.average.update([self.weights])
        self.short_average.update([self.weights])


def _infinite_batches(task: Task, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield training batches of equal size, epoch by epoch. The iterator is infinite.

    The last batch of an epoch is dropped if it is smaller. If the split is smaller than `batch_size`, each batch is the
    whole split.
    """
    size = min(batch_size, len(task.splits["train"]))
    for epoch in count():
        for batch in task.batches(size, seed, epoch):
            if len(batch.inputs) == size:
                yield batch
