"""The weights of a training as nowcasts see them: in the network, in the last snapshots, and as running averages."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..generative.base import GenerativeOptimizer
from ..weights.layout import Layout
from .averages import RunningAverages
from .costs import Stopwatch
from .forecasts import Forecasts
from .history import AverageOffset, History
from .memory import Memory
from .model_state import ModelState, moved_by


class TrackedWeights:
    """The weights that a base optimizer moves, and what is derived from them as the training goes on.

    Args:
        model: the network.
        base: base optimizer, which moves exactly the trainable weights of the network.
        forecaster: predicts the weights, or their running average.
        averages: running averages of the weights.
        memory: gives the memory of the snapshots of weights on a device.
        stopwatch: measures forecasts, on the device of the weights.
        follow_device: whether to move the forecaster to the device of the weights.
    Attributes:
        model_state: weights and buffers of the network.
        history: the last snapshots, of the weights or of the average that the forecaster predicts.
        forecasts: predicts from the history, with what the forecaster has learned from the snapshots.
        averages: running averages of the weights.
        offset: of an accepted forecast that the weights did not follow, from the average.
    Raises:
        LayoutMismatch: the base optimizer moves other parameters, or some of them cannot be forecast.
        InvalidConfig: there is no such memory.
    """

    def __init__(
        self,
        model: nn.Module,
        base: torch.optim.Optimizer,
        forecaster: GenerativeOptimizer,
        averages: RunningAverages,
        memory: Callable[[torch.device], Memory],
        stopwatch: Stopwatch,
        *,
        follow_device: bool,
    ) -> None:
        self.base, self.forecaster, self.averages = base, forecaster, averages
        self._model, self._memory, self._stopwatch, self._follow_device = model, memory, stopwatch, follow_device
        self.start()

    @property
    def layout(self) -> Layout:
        """Names and shapes of the weights."""
        return self.model_state.layout

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model_state.device

    @property
    def is_outdated(self) -> bool:
        """Whether the base optimizer moves other parameters than at the start, after `add_param_group`."""
        return moved_by(self.base) != self._moved

    def start(self) -> None:
        """Begin without snapshots and averages, with the weights that the base optimizer moves now.

        Raises:
            LayoutMismatch: these are not the trainable weights of the network.
        """
        self.model_state = ModelState(self._model)
        self.model_state.check_moved_by(self.base)
        self._moved = moved_by(self.base)
        self._stopwatch.device = self.device
        self.history = History(self.forecaster.history, self.layout, self._memory(self.device))
        self.forecasts = Forecasts(
            self.forecaster, self.history, self.layout, self.device, self._stopwatch, follow_device=self._follow_device
        )
        self.offset = AverageOffset()
        self.averages.reset()

    def take_snapshot(self, step: int) -> None:
        """Add the weights, or the average that is predicted, to the history; the forecaster learns from it.

        Before the first update of the average it is the weights.
        """
        average = self.averages.predicted
        self.history.add(step, average.tensors if average and average.updates else self.model_state.weights)
        self.forecasts.observe()

    def forget(self) -> None:
        """Drop snapshots and averages; the next snapshot is of the weights."""
        self.history.clear()
        self.averages.reset()

    def stop(self) -> None:
        """Drop what only nowcasts need; the average to evaluate and to keep goes on."""
        self.history.clear()
        self.averages.keep_only_kept()

    def average(self, step: int) -> Tensor | None:
        """The average to evaluate and to keep, with the offset; None before its first update [raw units].

        Args:
            step: the present training time [steps].
        """
        kept = self.averages.kept
        if kept is None or not kept.updates:
            return None
        return self.offset.on(self.layout.join(kept.tensors), kept.decay, step)

    def state_dict(self) -> dict[str, Any]:
        """Snapshots, averages, offset, and what the forecaster has learned."""
        return {
            **self.history.state_dict(),
            **self.forecasts.state_dict(),
            "averages": self.averages.state_dict(),
            "lead": self.offset.state_dict(),
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Check that a state is of these weights and of this forecaster.

        Raises:
            CheckpointError: it is of another forecaster that learns from the training, or damaged.
            LayoutMismatch: it is of another network.
        """
        self.history.check_state(state)
        self.forecasts.check_state(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned and `check_state` accepted."""
        self.history.load_state_dict(state)
        self.forecasts.load_state_dict(state)
        self.offset.load_state_dict(state["lead"])
        self.averages.load_state_dict(state["averages"], self.model_state.weights)
