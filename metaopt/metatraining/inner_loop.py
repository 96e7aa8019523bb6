"""Many short inner trainings of one problem at once, batched over networks: the inner loop of online meta-training."""

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
_DIVERGED = 3.0  # times the baseline loss; what is worse has nothing to teach


class InnerTrainings:
    """Networks of one problem that train side by side with Adam, each with its own batches and learning rate.

    The arguments determine everything. Adam (Kingma & Ba 2014, arXiv:1412.6980) is written out here because
    the rows have learning rates of their own, which `torch.optim` cannot have in one tensor; a test compares the two.

    Args:
        problem: the task and the network.
        weights: where each network starts.
        lr: learning rates.
        batch_size: examples in a batch [count].
        policy: when snapshots are kept, and which weights follow a forecast.
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
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)
        self._batches = _endless(problem.task, batch_size, seed)
        self._history = self.weights.unsqueeze(1).repeat(1, history, 1)
        self._times = torch.zeros(len(weights), history)

    @property
    def averaged(self) -> Float[Tensor, "rows weights"]:
        """The running average of the weights; the weights before the first step."""
        return self._value(self.average)

    def past(self) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """The last snapshots and their times; the present ones stand for those that do not exist."""
        return self._history, self._times  # replaced as they grow, never written to

    def advance(self, steps: int) -> None:
        """Train every network for some steps."""
        for _ in range(steps):
            self._take_step()
            if self.policy.snapshot_due(self.step):
                self._history = torch.cat([self._history[:, 1:], self.averaged.unsqueeze(1)], 1)
                self._times = torch.cat([self._times[:, 1:], torch.full((len(self.weights), 1), float(self.step))], 1)

    def accept(self, forecast: Float[Tensor, "rows weights"], examples: Batch) -> Bool[Tensor, " rows"]:
        """The rows whose forecast the policy accepts.

        Args:
            examples: what the guard measures losses on.
        """
        before, after = (self.problem.example_losses(each, examples) for each in (self.averaged, forecast))
        return accepts(before, after) & ~self.diverged

    def follow(
        self, accepted: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"], examples: Batch
    ) -> Bool[Tensor, " rows"]:
        """Add the predicted change of the average to the weights where the policy lets them follow, as in `Nowcast`.

        A forecast of the weights themselves is followed wherever it is accepted.

        Args:
            accepted: the rows whose forecast is accepted.
            change: for all rows; that of the others is ignored [raw units].
            examples: what the guard measures losses on.
        Returns: the rows that were moved.
        """
        followed = accepted
        if self.average.decay:
            short = self._value(self.short_average)
            before, after = (self.problem.example_losses(each, examples) for each in (short, short + change))
            followed = accepted & self._go_straight() & tolerates(before, after)
        self.shift(followed, change)
        return followed

    def shift(self, which: Bool[Tensor, " rows"], change: Float[Tensor, "rows weights"]) -> None:
        """Add a change to some networks, their averages and histories; Adam's moments stay.

        Args:
            which: the rows that are moved.
            change: for all rows; that of the others is ignored [raw units].
        """
        change = torch.where(which.unsqueeze(1), change, 0.0)
        self.weights = self.weights + change
        self.average.shift(0, change)
        self.short_average.shift(0, change)
        self._history = self._history + change.unsqueeze(1)

    def _value(self, average: ExponentialMovingAverage) -> Float[Tensor, "rows weights"]:
        return (average.tensors[0] if average.updates else self.weights).clone()

    def _go_straight(self) -> Bool[Tensor, " rows"]:
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
        gradient[self.diverged] = 0.0  # they stay where they are
        self.step += 1
        self._first.lerp_(gradient, 1 - _BETAS[0])
        self._second.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._first / (1 - _BETAS[0] ** self.step)
        spread = (self._second / (1 - _BETAS[1] ** self.step)).sqrt()
        self.weights = self.weights - self._lr * ~self.diverged.unsqueeze(1) * mean / (spread + _EPSILON)
        self.average.update([self.weights])
        self.short_average.update([self.weights])


def _endless(task: Task, batch_size: int, seed: int) -> Iterator[Batch]:
    """Full training batches, epoch after epoch.

    Where the split is smaller than a batch, it is taken whole.
    """
    size = min(batch_size, len(task.splits["train"]))
    for epoch in count():
        for batch in task.batches(size, seed, epoch):
            if len(batch.inputs) == size:
                yield batch
