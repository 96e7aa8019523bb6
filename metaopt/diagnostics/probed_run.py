"""The hold run that diagnostics measure: its snapshots, predictions from them, and a loss that is fast to compute."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator, isolated
from ..evaluation.paired_runs import RunSetup
from ..evaluation.predictions import Snapshots, state_at
from ..generative.base import GenerativeOptimizer
from ..nowcast.reestimation import reestimate_batchnorm
from ..tasks import Examples
from ..tasks.measure import batches_of, mean_loss

Weights = Float[Tensor, " weights"]

_STARTS = 4
_SMALL, _LARGE = 50_000, 2_000_000  # weights [count]


class Detail(NamedTuple):
    """The resolution of diagnostics; it is lower for larger networks, so that they take seconds.

    Attributes:
        examples: validation examples of each loss [count].
        grid: points along each side of the plane [count].
        snapshots: snapshots of the trajectory in the plane [count], which bounds memory.
        statistics: batches for the BatchNorm statistics [count].
    """

    examples: int
    grid: int
    snapshots: int
    statistics: int

    @classmethod
    def of(cls, weights: int) -> Self:
        """The resolution for a network with a number of weights [count]."""
        if weights <= _SMALL:
            return cls(512, 21, 33, 8)
        return cls(256, 13, 33, 8) if weights <= _LARGE else cls(128, 9, 13, 2)


class ProbedRun:
    """One hold run, with the snapshots that the optimizer receives.

        run = ProbedRun(setup, observer.snapshots)
        start = run.starts()[0]
        change = run.loss(run.predict(optimizer, start, run.horizon)) - run.loss(run.snapshots[start])

    Args:
        setup: with which the run was trained.
        snapshots: its weights by step, or their running average if the optimizer predicts averages.
    """

    def __init__(self, setup: RunSetup, snapshots: Snapshots) -> None:
        self.setup, self.snapshots, self.layout = setup, snapshots, setup.layout
        self.detail = Detail.of(self.layout.size)
        config = setup.config
        self.horizon = max(config.horizon // config.stride, 1) * config.stride
        sample = setup.task.sample("validation", self.detail.examples, generator(setup.seed, 3))
        self.examples = len(sample.inputs)
        batches = batches_of(Examples(*sample), setup.task, setup.device)
        self._batches = [batch.to(setup.device) for batch in batches]
        with isolated():
            self._model = setup.build(torch.channels_last)

    def starts(self, most: int = _STARTS, ahead: int | None = None) -> list[int]:
        """Steps to predict from, early to late, whose future is recorded; empty if the run is too short.

        Args:
            most: maximum number of steps [count].
            ahead: recorded future that is needed; `horizon` by default [steps].
        """
        config, ahead = self.setup.config, ahead or self.horizon
        last = max(self.snapshots)
        for gap in (config.every, config.stride):  # the steps of nowcasts, unless there is only one
            steps = [step for step in range(gap, last + 1, gap) if step + ahead in self.snapshots]
            if len(steps) > 1:
                break
        return evenly(steps, most)

    def predict(self, optimizer: GenerativeOptimizer, step: int, horizon: int) -> Weights:
        """The prediction of an optimizer for the weights some steps after a snapshot [raw units]."""
        state = state_at(self.setup, optimizer, self.snapshots, step)
        return state._replace(t_end=float(step + horizon)).predict(optimizer, self.layout)

    def loss(self, weights: Weights) -> float:
        """The mean loss over a fixed sample of the validation split, with BatchNorm statistics for these weights."""
        self.layout.write(self._model, weights)
        reestimate_batchnorm(self._model, self.setup.batchnorm_batches[: self.detail.statistics])
        return mean_loss(self._model, self.setup.task, self._batches)


def evenly(values: Sequence[int], most: int) -> list[int]:
    """At most `most` of the values, evenly spaced, the first and the last included."""
    indices = torch.linspace(0, len(values) - 1, min(most, len(values))).round().int().tolist()
    return [values[index] for index in dict.fromkeys(indices)]
