"""Base class of generative optimizers: pure functions from a history of weights to the weights at a later time."""

from abc import abstractmethod
from typing import Any, ClassVar, TypeAlias, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..core import config as configuration
from ..core.errors import LayoutMismatch
from ..weights.layout import Layout
from ..weights.snapshots import Snapshots

_SPAN = 2**22
"""Weights of each snapshot that `forecast` of an elementwise optimizer reads at a time; bounds memory."""

HISTORY_LIMIT = 10_000
"""Exclusive upper bound of `history` in configurations, which can come from files of other people [count]."""

State: TypeAlias = tuple[Tensor, ...]
"""What a generative optimizer has learned from a training so far."""


class SnapshotConfig(configuration.Config):
    """The weights that the snapshots of a history contain."""

    averaging: float = configuration.option(
        default=0.0,
        help="Decay of the exponential moving average (EMA) of the weights to forecast; 0 for the weights themselves.",
        at_least=0.0,
        below=1.0,
    )


class GenerativeOptimizer(nn.Module):
    """Base class of generative optimizers, which forecast the weights W_{t+h} from the history W_{t-k}, …, W_t.

        import torch
        from metaopt import GenerativeOptimizer, Layout, get_optimizer_model

        layout = Layout.of(torch.nn.Linear(2, 1))  # 3 weights
        history = torch.randn(1, 5, 3)  # [batch, snapshots, weights], oldest first
        t_history = torch.tensor([[0.0, 20.0, 40.0, 60.0, 80.0]])
        optimizer: GenerativeOptimizer = get_optimizer_model("Line")
        predicted = optimizer.predict(history, t_history, torch.tensor([120.0]), layout)  # [1, 3]

    An optimizer is pure: it has no target, no data and no step counter. It works on any layout and on any device: that
    of its arguments, which must also be the device of its parameters. A subclass is final; it names its `Config` and
    defines `extrapolate`. Call `generate` to train it, `predict` to use it, and `forecast` for several horizons of one
    history that may be in other memory; there is no `forward`.

    An optimizer may learn from the training in which it is used: `initial_state` and `observe` return what it has
    learned, which the forecasts take. Without a state, it learns from the history alone.

    Histories of a batch can differ in length. A missing snapshot is a copy of the last snapshot with its time, placed
    before the others; `present_snapshots` gives the mask.
    """

    Config: ClassVar[type[configuration.Config]]
    config: configuration.Config

    elementwise: ClassVar[bool] = False
    """Whether the forecast of each weight depends on the history of that weight alone. `forecast` then calls
    `extrapolate` with parts of the flat vector, so that no more of the history is on the device at once."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions are stored with the weights, because its forecasts could depend on them."""

    @property
    def history(self) -> int:
        """Largest number of snapshots that it uses, including the last [count]."""
        return int(getattr(self.config, "history", 1))

    @property
    def averaging(self) -> float:
        """Decay of the EMA of the weights that its snapshots contain; 0 for the weights themselves."""
        return float(getattr(self.config, "averaging", 0.0))

    @property
    def evolved(self) -> Float[Tensor, " numbers"] | None:
        """The numbers that evolution over whole trainings changes in place; None if there are none."""
        return None

    def initial_state(self, layout: Layout) -> State | None:
        """The state before the first snapshot; None for an optimizer that does not learn from the training."""
        return None

    def observe(
        self, state: State, snapshots: Snapshots, t_history: Float[Tensor, " snapshots"], layout: Layout
    ) -> State:
        """The state after the last snapshot of a history; the given one does not change.

        It has to be called after each snapshot, without gradients.

        Args:
            state: that after the snapshot before.
            snapshots: the history; each row has all weights [raw units].
            t_history: training times of the snapshots, on `snapshots.device` [optimizer steps].
            layout: names and shapes of the weights.
        """
        return state

    @abstractmethod
    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The weights at `t_end`, differentiable; the arguments are those of `generate`, already checked.

        An optimizer with a state takes it as a further argument, `state`.
        """

    @final
    def generate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
        state: State | None = None,
    ) -> Float[Tensor, "batch weights"]:
        """Forecast the weights at `t_end`, with gradients.

        An optimizer with parameters computes in their precision, others at least in float32. The forecast has the
        precision of the history.

        Args:
            history: snapshots up to the present weights W_t, oldest first [raw units]. It may be longer than the
                optimizer uses.
            t_history: training times of the snapshots, not decreasing [optimizer steps].
            t_end: time of the forecast, not before the last snapshot [optimizer steps].
            layout: names and shapes of the weights.
            state: what `observe` has returned for all snapshots, for each history of the batch; by default what the
                history alone gives.
        Returns: the forecast [raw units].
        Raises:
            LayoutMismatch: the number of weights differs from that of the layout, or shapes disagree.
        """
        self._check(history, t_history, t_end, layout)
        dtype = self._precision_for(history)
        times = t_history.to(dtype), t_end.to(dtype)
        return self.extrapolate(history.to(dtype), *times, layout, **_given(state)).to(history.dtype)

    @final
    @torch.no_grad()
    def predict(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
        state: State | None = None,
    ) -> Float[Tensor, "batch weights"]:
        """Forecast the weights at `t_end`, without gradients; otherwise like `generate`."""
        return self.generate(history, t_history, t_end, layout, state)

    @final
    @torch.no_grad()
    def forecast(
        self,
        snapshots: Snapshots,
        t_history: Float[Tensor, " snapshots"],
        t_end: Float[Tensor, " horizons"],
        layout: Layout,
        state: State | None = None,
    ) -> Float[Tensor, "horizons weights"]:
        """Forecast the weights at several times from one history, which may be in other memory and precision.

        The values are those of `predict`.

        Args:
            snapshots: the history; each row has all weights [raw units].
            t_history: training times of the snapshots, not decreasing, on `snapshots.device` [optimizer steps].
            t_end: times of the forecasts, not before the last snapshot, on `snapshots.device` [optimizer steps].
            layout: names and shapes of the weights.
            state: what `observe` has returned for all snapshots; by default what the history alone gives.
        Returns: the forecasts, on `snapshots.device` [raw units].
        Raises:
            LayoutMismatch: the number of weights differs from that of the layout.
        """
        layout.check_size(snapshots.rows[-1])
        return self.extrapolate_snapshots(snapshots, t_history, t_end, layout, **_given(state))

    @final
    @torch.no_grad()
    def predict_horizons(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, "horizons batch"],
        layout: Layout,
    ) -> Float[Tensor, "horizons batch weights"]:
        """Forecast the weights at several times for each history of a batch. The values are those of `predict`.

        Args:
            t_end: times of the forecasts, not before the last snapshot [optimizer steps].
        Raises:
            LayoutMismatch: as `generate`, or there is no time.
        """
        if not len(t_end):
            raise LayoutMismatch("no times of forecasts; expected at least one")
        for each in t_end:
            self._check(history, t_history, each, layout)
        dtype = self._precision_for(history)
        times = t_history.to(dtype), t_end.to(dtype)
        return self.extrapolate_horizons(history.to(dtype), *times, layout).to(history.dtype)

    def extrapolate_horizons(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, "horizons batch"],
        layout: Layout,
    ) -> Float[Tensor, "horizons batch weights"]:
        """The forecasts of `predict_horizons`. By default `extrapolate`, one time after the other."""
        forecasts = history.new_empty(*t_end.shape, layout.size)
        for forecast, each in zip(forecasts, t_end, strict=True):
            forecast.copy_(self.extrapolate(history, t_history, each, layout))
        return forecasts

    def extrapolate_snapshots(
        self,
        snapshots: Snapshots,
        t_history: Float[Tensor, " snapshots"],
        t_end: Float[Tensor, " horizons"],
        layout: Layout,
    ) -> Float[Tensor, "horizons weights"]:
        """The forecasts of `forecast`. By default `extrapolate`, on the whole history or on parts of it."""
        size = _SPAN if self.elementwise else layout.size
        count, times = len(t_end), t_history.expand(len(t_end), -1)
        forecasts = t_end.new_empty(count, layout.size, dtype=snapshots.dtype)
        for begin in range(0, layout.size, size):
            history = snapshots.read(begin, min(begin + size, layout.size)).expand(count, -1, -1)
            forecasts[:, begin : begin + size] = self.extrapolate(history, times, t_end, layout)
        return forecasts

    def _precision_for(self, history: Tensor) -> torch.dtype:
        """The precision of the parameters; without any that of the history, at least float32."""
        single = torch.promote_types(history.dtype, torch.float32)
        return next((each.dtype for each in self.parameters()), single)

    def _check(self, history: Tensor, t_history: Tensor, t_end: Tensor, layout: Layout) -> None:
        if history.ndim != 3 or history.shape[1] < 1:
            raise LayoutMismatch(f"history has shape {tuple(history.shape)}; expected [batch, snapshots ≥ 1, weights]")
        if t_history.shape != history.shape[:2] or t_end.shape != history.shape[:1]:
            raise LayoutMismatch(
                f"times have shapes {tuple(t_history.shape)} and {tuple(t_end.shape)}; a history of shape "
                f"{tuple(history.shape)} needs {tuple(history.shape[:2])} and {tuple(history.shape[:1])}"
            )
        layout.check_size(history)


def present_snapshots(t_history: Float[Tensor, "batch snapshots"]) -> Bool[Tensor, "batch snapshots"]:
    """Mask of the snapshots that are not missing: the last one, and those with an earlier time."""
    present = t_history < t_history[:, -1:]
    present[:, -1] = True
    return present


def _given(state: State | None) -> dict[str, Any]:
    """The state as an argument; optimizers without one do not have it."""
    return {} if state is None else {"state": state}
