"""The training that a portrait is of: its snapshots, states to predict from, and a loss that is cheap to look at."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.rng import generator, isolated
from ..evaluation.controls import Snapshots, state_at
from ..evaluation.paired_runs import RunSetup
from ..generative.base import GenerativeOptimizer
from ..nowcast.model_state import reestimate_batchnorm
from ..tasks import Examples
from ..tasks.measure import mean_loss

Weights = Float[Tensor, " weights"]

_STARTS = 4


class Detail(NamedTuple):
    """How closely a portrait looks, so that it takes seconds: what a loss and the snapshots are good for.

    Attributes:
        examples: validation examples behind a loss [count].
        grid: points along each side of the plane [count].
        snapshots: of the trajectory, in the plane [count], which bounds memory.
        statistics: batches that BatchNorm's statistics are estimated from [count].
    """

    examples: int
    grid: int
    snapshots: int
    statistics: int

    @classmethod
    def of(cls, weights: int) -> Self:
        """Less for networks with more weights [count]."""
        if weights <= _SMALL:
            return cls(512, 21, 33, 8)
        return cls(256, 13, 33, 8) if weights <= _LARGE else cls(128, 9, 13, 2)


_SMALL, _LARGE = 50_000, 2_000_000  # weights [count]


class ProbedRun:
    """One hold twin as the judged optimizer is shown it.

    Args:
        bench: where the twin was trained.
        snapshots: its weights by step, or their running average where the optimizer is one of averages.
    """

    def __init__(self, setup: RunSetup, snapshots: Snapshots) -> None:
        self.setup, self.snapshots, self.layout = setup, snapshots, setup.layout
        self.detail = Detail.of(self.layout.size)
        config = setup.config
        self.reach = max(config.horizon // config.stride, 1) * config.stride
        some = setup.task.sample("validation", self.detail.examples, generator(setup.seed, 3))
        self.examples = len(some.inputs)
        self._batches = list(Examples(*some).in_order(setup.task.rows_at_once))
        with isolated():
            self._model = setup.build()

    @property
    def last(self) -> int:
        """Where the last snapshot is [steps]."""
        return max(self.snapshots)

    def starts(self, most: int = _STARTS, ahead: int | None = None) -> list[int]:
        """Steps to predict from, early to late, whose future was recorded; empty if there are none.

        Args:
            most: how many [count].
            ahead: how much of the future [steps]; `reach` unless given.
        """
        config, ahead = self.setup.config, ahead or self.reach
        for gap in (config.every, config.stride):  # at nowcasts, unless they are too rare
            there = [step for step in range(gap, self.last + 1, gap) if step + ahead in self.snapshots]
            if len(there) > 1:
                break
        return evenly(there, most)

    def predicted(self, optimizer: GenerativeOptimizer, step: int, horizon: int) -> Weights:
        """What an optimizer expects some steps after a snapshot [raw units]."""
        state = state_at(self.setup, optimizer, self.snapshots, step)
        return state._replace(t_end=float(step + horizon)).predict(optimizer, self.layout)

    def loss(self, weights: Weights) -> float:
        """Mean loss over a fixed sample of the validation split; BatchNorm's statistics are those of these weights."""
        self.layout.write(self._model, weights)
        reestimate_batchnorm(self._model, self.setup.statistics_batches[: self.detail.statistics])
        return mean_loss(self._model, self.setup.task, self._batches)


def evenly(values: Sequence[int], most: int) -> list[int]:
    """At most so many of some values, evenly spread, first and last among them."""
    places = torch.linspace(0, len(values) - 1, min(most, len(values))).round().int().tolist()
    return [values[place] for place in dict.fromkeys(places)]
