"""The forecasts of one training, and what their generative optimizer has learned from it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.devices import device_of
from ..core.errors import CheckpointError
from ..generative.base import GenerativeOptimizer, State
from ..generative.files import optimizer_facts
from ..weights.files import digest_of
from ..weights.layout import Layout
from ..weights.snapshots import Snapshots
from .costs import Stopwatch
from .history import History

_KEY, _DIGEST = "forecaster", "forecaster_digest"


class Forecasts:
    """Forecasts weights from a history.

    Args:
        forecaster: generative optimizer that predicts the weights, or their running average.
        history: snapshots from which the forecaster predicts.
        layout: names and shapes of the weights.
        device: device of the weights.
        stopwatch: measures the forecasts.
        follow_device: whether to move the forecaster to the device of the weights.
    """

    def __init__(
        self,
        forecaster: GenerativeOptimizer,
        history: History,
        layout: Layout,
        device: torch.device,
        stopwatch: Stopwatch,
        *,
        follow_device: bool,
    ) -> None:
        self.forecaster = forecaster
        self._history, self._layout, self._ours, self._follow_device = history, layout, device, follow_device
        self._stopwatch = stopwatch
        self._state: State | None = None

    @torch.no_grad()
    def observe(self) -> None:
        """Let the forecaster learn from the last snapshot. It has to be called after each snapshot."""
        if (empty := self.forecaster.initial_state(self._layout)) is None:
            return
        device = self._device()
        state = tuple(each.to(device) for each in self._state or empty)
        self._state = self.forecaster.observe(state, self._snapshots(device), self._times(device), self._layout)

    def predict(self, horizons: Sequence[int]) -> Float[Tensor, "horizons weights"]:
        """Forecasts at several horizons, on the device of the forecaster [raw units]."""
        device, last = self._device(), self._history.times[-1]
        times = self._times(device, [last + horizon for horizon in horizons])
        t_history, t_end = times.split([len(self._history), len(horizons)])
        state = None if self._state is None else tuple(each.to(device) for each in self._state)
        with self._stopwatch.part("forecast"):
            return self.forecaster.forecast(self._snapshots(device), t_history, t_end, self._layout, state)

    def state_dict(self) -> dict[str, Any]:
        """What the forecaster has learned, in main memory; empty if it does not learn."""
        if self._state is None:
            return {}
        return {_KEY: tuple(each.to("cpu", copy=True) for each in self._state), _DIGEST: self._digest()}

    def check_state(self, state: dict[str, Any]) -> None:
        """Check that a state is of this forecaster, if both learn from the training.

        Raises:
            CheckpointError: it is not, or it is damaged.
        """
        given, expected = state.get(_KEY), self.forecaster.initial_state(self._layout)
        if given is None or expected is None:
            return
        if state.get(_DIGEST) != self._digest():
            raise CheckpointError(
                "an optimizer state with what another forecaster has learned. Load it with the forecaster that it was "
                f"saved with, or delete state['nowcast']['{_KEY}']: this forecaster then learns from the history"
            )
        theirs, ours = ([tuple(each.shape) for each in part] for part in (given, expected))
        if theirs != ours or not all(bool(each.isfinite().all()) for each in given):
            raise CheckpointError(
                f"what the forecaster has learned has the shapes {theirs} in this optimizer state, or numbers that are "
                f"not finite; expected finite numbers of shapes {ours}. Load it with the forecaster that it was saved "
                f"with, or delete state['nowcast']['{_KEY}']"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned and `check_state` accepted."""
        given, learns = state.get(_KEY), self.forecaster.initial_state(self._layout) is not None
        self._state = tuple(each.clone() for each in given) if learns and given is not None else None

    def _digest(self) -> str:
        """Identifies the forecaster by its weights: what it has learned is of no use to another one."""
        return digest_of(self.forecaster.state_dict(), optimizer_facts(self.forecaster))

    def _device(self) -> torch.device:
        """The device of the forecaster, which may follow that of the weights."""
        device = device_of(self.forecaster, self._ours)
        if self._follow_device and device != self._ours:
            self.forecaster.to(self._ours)
            return self._ours
        return device

    def _snapshots(self, device: torch.device) -> Snapshots:
        return Snapshots(self._history.snapshots.rows, device)

    def _times(self, device: torch.device, ends: Sequence[int] = ()) -> Float[Tensor, " times"]:
        """The times of the snapshots, and further ones [steps]."""
        return torch.tensor([*self._history.times, *ends], dtype=torch.float32).to(device, non_blocking=True)
