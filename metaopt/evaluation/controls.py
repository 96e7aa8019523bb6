"""Single predictions from states of the hold twin, and the controls that must fail on the same states.

A control spoils what an optimizer is told of the past. One that then still scores like the real prediction does not
use that past: it has memorised where such trainings end.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.progress import NO_PROGRESS, Progress
from ..generative.base import GenerativeOptimizer
from ..weights.layout import Layout
from .paired_runs import RunSetup
from .results import Prediction

Snapshots = Mapping[int, Float[Tensor, " weights"]]
"""Weights of one run by step."""

_HASTE = 10


class State(NamedTuple):
    """What an optimizer is told at one nowcast."""

    history: Float[Tensor, "snapshots weights"]
    times: Float[Tensor, " snapshots"]
    t_end: float

    def predict(self, optimizer: GenerativeOptimizer, layout: Layout) -> Float[Tensor, " weights"]:
        """The weights at `t_end` [raw units]."""
        t_end = torch.tensor([self.t_end])
        return optimizer.predict(self.history.unsqueeze(0), self.times.unsqueeze(0), t_end, layout)[0]


Corruption = Callable[[State, State], State]
"""Makes a spoilt state out of a state and that of another run at the same step."""


def zero_history(state: State, other: State) -> State:
    """All snapshots are zero, W_t too. What comes out of nothing must be nothing."""
    return state._replace(history=torch.zeros_like(state.history))


def shuffled_history(state: State, other: State) -> State:
    """The snapshots before W_t in reverse order; W_t stays, or the control would fail for lack of it."""
    return state._replace(history=torch.cat([state.history[:-1].flip(0), state.history[-1:]]))


def foreign_history(state: State, other: State) -> State:
    """The path of another run (another random seed, same steps), moved so that it ends in W_t."""
    return state._replace(history=other.history - other.history[-1] + state.history[-1])


def wrong_times(state: State, other: State) -> State:
    """The past is said to have taken a tenth of its time, and so to have been ten times as fast."""
    return state._replace(times=state.times[-1] + (state.times - state.times[-1]) / _HASTE)


CONTROLS: Mapping[str, Corruption] = {
    "zero history": zero_history,
    "shuffled history": shuffled_history,
    "another run's history": foreign_history,
    "wrong times": wrong_times,
}


class SinglePredictions:
    """The states of one hold twin at its nowcast steps, and what predictions from them are worth."""

    def __init__(self, setup: RunSetup, snapshots: Snapshots, bar: Progress = NO_PROGRESS) -> None:
        self._bench, self._snapshots, self._rate, self._bar = setup, snapshots, str(setup.rate), bar
        steps = range(setup.config.every, setup.config.steps + 1, setup.config.every)
        self._losses = {step: setup.loss_of(snapshots[step]) for step in steps}

    def judge(self, predictor: str, optimizer: GenerativeOptimizer) -> list[Prediction]:
        """Predict once, unguarded, from each state."""
        judged = []
        for step, before in self._losses.items():
            weights = state_at(self._bench, optimizer, self._snapshots, step).predict(optimizer, self._bench.layout)
            after, error = self._bench.loss_of(weights), self._relative_error(step, weights)
            judged.append(Prediction(predictor, self._bench.seed, step, before, after, error, self._rate))
            self._bar.update()
        return judged

    def judge_controls(self, optimizer: GenerativeOptimizer, others: Snapshots) -> list[Prediction]:
        """The same with each control, apart from those that leave a short history as it is.

        Args:
            others: the snapshots of another run at the same steps.
        """
        judged = []
        for name, corrupt in CONTROLS.items():
            for step, before in self._losses.items():
                state, other = (state_at(self._bench, optimizer, run, step) for run in (self._snapshots, others))
                corrupted = corrupt(state, other)
                if torch.equal(corrupted.history, state.history) and torch.equal(corrupted.times, state.times):
                    continue
                after = self._bench.loss_of(corrupted.predict(optimizer, self._bench.layout))
                judged.append(Prediction(name, self._bench.seed, step, before, after, None, self._rate))
                self._bar.update()
        return judged

    def _relative_error(self, step: int, weights: Tensor) -> float | None:
        truth = self._snapshots.get(step + self._bench.config.horizon)
        if truth is None:
            return None
        return float((weights - truth).square().sum() / (self._snapshots[step] - truth).square().sum())


def state_at(setup: RunSetup, optimizer: GenerativeOptimizer, snapshots: Snapshots, step: int) -> State:
    """What an optimizer is told at a nowcast: as many snapshots as it takes, or as there are."""
    config = setup.config
    ages = reversed(range(optimizer.history))
    steps = [past for age in ages if (past := step - age * config.stride) >= 0]
    history = torch.stack([snapshots[past] for past in steps])
    return State(history, torch.tensor(steps, dtype=torch.float32), float(step + config.horizon))
