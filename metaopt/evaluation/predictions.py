"""Single predictions from states of the hold run, and controls: the same predictions from corrupted states.

Each control corrupts one part of the input. An optimizer that predicts as well from corrupted states does not use that
part: it has memorised the weights in which such trainings end.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.devices import device_of, move
from ..core.progress import NO_PROGRESS, Progress
from ..generative.base import GenerativeOptimizer
from ..weights.layout import Layout
from .paired_runs import RunSetup
from .results import Prediction

Snapshots = Mapping[int, Float[Tensor, " weights"]]
"""Weights of one run by step."""

_TIME_COMPRESSION = 10


class State(NamedTuple):
    """The input of an optimizer at one nowcast: snapshots, their steps, and the step to predict, on the CPU."""

    history: Float[Tensor, "snapshots weights"]
    times: Float[Tensor, " snapshots"]
    t_end: float

    def predict(self, optimizer: GenerativeOptimizer, layout: Layout) -> Float[Tensor, " weights"]:
        """The predicted weights at `t_end`, computed on the device of the optimizer, on the CPU [raw units]."""
        device = device_of(optimizer)
        history, times, t_end = (move(each, device) for each in (self.history, self.times, torch.tensor([self.t_end])))
        return optimizer.predict(history.unsqueeze(0), times.unsqueeze(0), t_end, layout)[0].cpu()


def state_at(setup: RunSetup, optimizer: GenerativeOptimizer, snapshots: Snapshots, step: int) -> State:
    """The state after a step, with as many snapshots as the optimizer uses and the run has."""
    config = setup.config
    ages = reversed(range(optimizer.history))
    steps = [earlier for age in ages if (earlier := step - age * config.stride) >= 0]
    history = torch.stack([snapshots[earlier] for earlier in steps])
    return State(history, torch.tensor(steps, dtype=torch.float32), float(step + config.horizon))


Control = Callable[[State, State], State]
"""Corrupts a state; the second argument is the state of another run at the same step."""


def zero_history(state: State, other: State) -> State:
    """Set all snapshots to zero, W_t included."""
    return state._replace(history=torch.zeros_like(state.history))


def shuffled_history(state: State, other: State) -> State:
    """Reverse the order of the snapshots before W_t; without W_t in its place every prediction would be poor."""
    return state._replace(history=torch.cat([state.history[:-1].flip(0), state.history[-1:]]))


def foreign_history(state: State, other: State) -> State:
    """Take the history of another run (another random seed, same steps), shifted so that its last snapshot is W_t."""
    return state._replace(history=other.history - other.history[-1] + state.history[-1])


def wrong_times(state: State, other: State) -> State:
    """Divide the ages of the snapshots by ten, as if the training had been ten times as fast."""
    return state._replace(times=state.times[-1] + (state.times - state.times[-1]) / _TIME_COMPRESSION)


CONTROLS: Mapping[str, Control] = {
    "zero history": zero_history,
    "shuffled history": shuffled_history,
    "another run's history": foreign_history,
    "wrong times": wrong_times,
}
"""The controls that must fail, by name."""


class SinglePredictions:
    """Measures single unguarded predictions from the states of one hold run, at each of its nowcast steps.

        single = SinglePredictions(setup, observer.snapshots)
        predictions = single.predict("line", Line())

    Args:
        snapshots: the snapshots of the hold run.
        bar: is updated after each prediction.
    """

    def __init__(self, setup: RunSetup, snapshots: Snapshots, bar: Progress = NO_PROGRESS) -> None:
        self._setup, self._snapshots, self._bar = setup, snapshots, bar
        steps = range(setup.config.every, setup.config.steps + 1, setup.config.every)
        self._losses = {step: setup.validation_loss(snapshots[step]) for step in steps}

    def predict(self, contender: str, optimizer: GenerativeOptimizer) -> list[Prediction]:
        """Predict once from each state."""
        predictions = []
        for step in self._losses:
            weights = state_at(self._setup, optimizer, self._snapshots, step).predict(optimizer, self._setup.layout)
            predictions.append(self._measured(contender, step, weights, self._relative_error(step, weights)))
        return predictions

    def predict_controls(self, optimizer: GenerativeOptimizer, others: Snapshots) -> list[Prediction]:
        """Predict once from each state with each control; a control that does not change a short history is left out.

        Args:
            others: the snapshots of another run at the same steps.
        """
        predictions = []
        for name, corrupt in CONTROLS.items():
            for step in self._losses:
                state, other = (state_at(self._setup, optimizer, run, step) for run in (self._snapshots, others))
                corrupted = corrupt(state, other)
                if torch.equal(corrupted.history, state.history) and torch.equal(corrupted.times, state.times):
                    continue
                weights = corrupted.predict(optimizer, self._setup.layout)
                predictions.append(self._measured(name, step, weights, None))
        return predictions

    def _measured(self, predictor: str, step: int, weights: Tensor, error: float | None) -> Prediction:
        before, after = self._losses[step], self._setup.validation_loss(weights)
        self._bar.update()
        return Prediction(predictor, self._setup.seed, step, before, after, error, str(self._setup.rate))

    def _relative_error(self, step: int, weights: Tensor) -> float | None:
        truth = self._snapshots.get(step + self._setup.config.horizon)
        if truth is None:
            return None
        return float((weights - truth).square().sum() / (self._snapshots[step] - truth).square().sum())
