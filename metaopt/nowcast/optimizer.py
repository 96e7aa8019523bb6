"""`Nowcast`: a `torch.optim.Optimizer` that adds nowcasts to a base optimizer."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import InvalidConfig
from ..core.moved import renamed_keywords
from ..core.text import shown
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..weights.averaging import ExponentialMovingAverage
from ..weights.layout import Layout
from .advice import warn_of_missing_functions, warn_of_stale_statistics
from .averages import RunningAverages
from .budget import TimeBudget
from .costs import NowcastCost, Stopwatch
from .guards.data_guard import DataGuard
from .guards.guard import Guard, GuardFunction
from .kept_weights import BestWeights, KeptWeights
from .memory import Memory
from .metrics import MetricTargets
from .model_state import ModelState
from .nowcasts import Nowcasts
from .policy import NowcastEvent, NowcastPolicy, make_policy
from .proposals import Proposals
from .reestimation import Reestimation
from .schedule import Schedule
from .state import Record, split_state, with_nowcast_state
from .statistics import Replay, RunningStatistics, has_statistics
from .steps import Steps
from .summary import summary_of
from .tracked_weights import TrackedWeights
from .training_passes import TrainingPasses
from .wrapper import OptimizerWrapper

log = logging.getLogger(__name__)

_OLD_KEYWORDS = {"optimizer": "forecaster", "horizon": "horizons", "straight": "min_cosine"}


class Nowcast(OptimizerWrapper):
    """Wraps a base optimizer and periodically replaces the weights by a forecast of a generative optimizer.

    Use it in place of the base optimizer. It works with learning-rate schedulers, closures, parameter groups and
    `GradScaler`, and shares `param_groups` and `state` with the base optimizer.

        import torch, metaopt

        task = metaopt.load_task("digits")
        model = metaopt.get_target_model("MLP", task.model_facts)
        base = torch.optim.Adam(model.parameters(), lr=1e-3)
        guard = metaopt.guard_from(task.splits["guard"], task.losses)
        optimizer = metaopt.Nowcast(base, model, "builtin", guard=guard)
        for epoch in range(20):
            for inputs, labels in task.batches(batch_size=64, seed=0, epoch=epoch):
                optimizer.zero_grad()
                task.loss(model(inputs), labels).backward()
                optimizer.step()
        with optimizer.best_weights() as best:
            print(best.kind, best.loss_raw, best.loss_averaged)

    If `forecaster.averaging` is not 0, the forecaster predicts a running average of the weights. A nowcast then adds
    the predicted change of the average to the weights: w ← w + (forecast − average). Because the average lags behind
    the weights, a forecast can improve the average without improving the weights. In that case the weights do not
    move, and only `averaged_weights` uses the forecast.

    With `torch.distributed`, all ranks call their guards at the same steps. Rank 0 computes the forecasts, and its
    losses decide for all ranks.

    Args:
        base: base optimizer, which updates the weights at every step. Its parameters must be exactly the trainable
            parameters of the model.
        model: the network to train.
        forecaster: a generative optimizer, or an argument of `load_optimizer`: a file, `builtin`, or an MLflow URI such
            as `models:/metaopt-digits-MLP@champion`. A forecaster loaded by `Nowcast` is moved to the model's device.
        policy: when to nowcast, which horizons to propose, what to accept, and when to move the weights. Given in place
            of `every`, `stride`, `horizons` and `min_cosine`.
        every: interval between nowcasts, a multiple of `stride`; 40 by default [steps].
        stride: interval between the snapshots of the history; 20 by default [steps].
        horizons: one or several horizons, from which the guard chooses; 0.5, 1.5, 4 and 8 times `every` by default.
            Without a guard, only the first one is used; `every` by default [steps].
        min_cosine: minimum cosine similarity of the last two displacements of the running average. Below it, a
            forecast of the average does not move the weights. 0.7 by default; −1 accepts every direction.
        guard: what `guard_from` makes of held-out data and a loss. Or a function that returns the loss of the model on
            held-out data or, preferably, a tensor with one loss per example; it must measure the same examples in all
            calls of one nowcast. It is called several times per nowcast, without gradients. At each call, the model
            contains the weights or the average to evaluate. A proposal is accepted if its mean loss is lower than that
            of the last snapshot by at least one standard error of the differences; a single loss must not increase.
            Call `model.eval()` in a function: the mode is restored after each call, as are the global random numbers,
            and buffers after the nowcast. All calls of one nowcast draw the same random numbers. Without a guard,
            every finite forecast is accepted, even if it increases the loss.
        reestimate: function that updates buffers that depend on the weights, in place of what happens by default: the
            statistics of BatchNorm layers are estimated again from the last inputs of the training, for a forecast that
            moves the weights and for `averaged_weights`. The function is called after all weights are replaced, also
            before the guard measures a proposal.
        batchnorm_batches: how many inputs of the training are kept for that, one per step; they are not copied. None
            are kept without BatchNorm layers, or with `reestimate`; 0 leaves the statistics alone [count].
        ema: decay of the running average for `averaged_weights`; `forecaster.averaging` by default.
        moments: whether to `keep` or `reset` the base optimizer's state when a nowcast moves the weights.
        history_device: where the history is kept; by default on the device of the weights. `cpu` saves memory of a GPU:
            snapshots are copied while the training goes on, and forecasts read them in parts.
        history_dtype: precision of the snapshots before the last: `float32`, or `bfloat16` for half of the memory. The
            last one, from which forecasts start, is always in float32.
        max_overhead: limit on the time that all of this adds, as a fraction of the time of the training; 5 % by
            default. Nowcasts are spaced and shrunk to stay within it: fewer horizons, and fewer examples of a guard of
            `guard_from`. They stop, with a message, if they do not pay (see `metaopt.nowcast.payoff`). All of this
            depends on measured times, so two trainings with the same random seed differ. With None there is no limit:
            a nowcast takes place every `every` steps, and the same random seed gives the same training.
    Raises:
        InvalidConfig: a parameter of the policy or of the history, `ema`, `moments`, `batchnorm_batches` or
            `max_overhead` is invalid, or `policy` is given together with `every`, `stride`, `horizons` or `min_cosine`.
        LayoutMismatch: the parameters of the base optimizer are not the trainable parameters of the model.
        UnknownName, TrackingError, FileFormatError: the forecaster cannot be loaded.
    """

    _replay: ClassVar[Replay] = Replay()

    def __init__(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module,
        forecaster: GenerativeOptimizer | str | Path | None = None,
        *,
        policy: NowcastPolicy | None = None,
        every: int | None = None,
        stride: int | None = None,
        horizons: int | Sequence[int] | None = None,
        min_cosine: float | None = None,
        guard: GuardFunction | DataGuard | None = None,
        reestimate: Callable[[], None] | None = None,
        batchnorm_batches: int = 8,
        ema: float | None = None,
        moments: Literal["keep", "reset"] = "keep",
        history_device: str | torch.device | None = None,
        history_dtype: Literal["float32", "bfloat16"] = "float32",
        max_overhead: float | None = 0.05,
        **old_keywords: Any,
    ) -> None:
        given: dict[str, Any] = {"forecaster": forecaster, "horizons": horizons, "min_cosine": min_cosine}
        renamed_keywords("Nowcast", old_keywords, _OLD_KEYWORDS, given)
        source = given.pop("forecaster")
        if source is None:
            raise TypeError("Nowcast needs a forecaster: a generative optimizer, a file, or `builtin`")
        self.policy = make_policy(policy, every=every, stride=stride, **given)
        _check(moments, batchnorm_batches)
        self.moments = moments
        self._record, stopwatch = Record(TimeBudget(max_overhead)), Stopwatch()
        super().__init__(base)
        ModelState(model).check_moved_by(base)  # before a forecaster is loaded, which can take long
        self.model = model
        is_file = not isinstance(source, GenerativeOptimizer)
        self.forecaster: GenerativeOptimizer = load_optimizer(source) if is_file else source
        averages = RunningAverages(self.forecaster.averaging, ema, guarded=guard is not None)
        memory = partial(Memory, kept_on=history_device, dtype=history_dtype)
        self._tracked = tracked = TrackedWeights(
            model, base, self.forecaster, averages, memory, stopwatch, follow_device=is_file
        )
        keeps = batchnorm_batches if reestimate is None and has_statistics(model) else 0
        noted = bool(keeps) or isinstance(guard, DataGuard)
        self._passes = passes = TrainingPasses(model, keeps, hooked=noted and self._replay.hooked)
        statistics = RunningStatistics(model, passes, self._replay, warn_of_stale_statistics) if keeps else None
        self._reestimation = reestimation = Reestimation(model, reestimate, statistics, stopwatch)
        precision = partial(self._replay.precision, passes)
        function = guard.bound_to(model, precision) if isinstance(guard, DataGuard) else guard
        self._guard = Guard(function, model, self._warn, stopwatch)
        self._kept = KeptWeights(model, tracked, self._guard, reestimation)
        proposals = Proposals(tracked, self._guard, self.policy, reestimation, self._warn)
        nowcasts = Nowcasts(tracked, proposals, self._guard, self.policy, reestimation, moments, self._warn)
        self._metrics = MetricTargets()
        self._schedule = Schedule(nowcasts, tracked, self._guard, self.policy, self._record, stopwatch, self._metrics)
        self._steps = Steps(base, tracked, passes, reestimation, self.policy, self._record, self._schedule)
        self._warned = False
        warn_of_missing_functions(model, guard=guard is not None, statistics=bool(keeps) or reestimate is not None)

    def __repr__(self) -> str:
        guard = "with a guard" if self._guard else "without a guard"
        parts = f"every={self.policy.every}, stride={self.policy.stride}, horizons={list(self.policy.all_horizons)}"
        forecaster = type(self.forecaster).__name__
        return f"Nowcast({parts}, forecaster={forecaster}, {guard}, after {self.steps} steps)\nbase: {self.base!r}"

    def summary(self) -> str:
        """What the nowcasts have done so far and what they have cost, as text of several lines.

        base          Adam, learning rate 0.001
        schedule      every 40 steps, a snapshot every 20 steps
        …
        """
        return summary_of(self.base, self.forecaster, self.policy, self._guard.function, self._record)

    def log_to(self, target: Any) -> None:
        """Log each nowcast from now on as metrics, by rank 0.

        They are `nowcast/accepted`, `followed`, `horizon` [steps], `gain`, `loss_before`, `loss_after`,
        `forecast_seconds`, `guard_seconds`, `reestimation_seconds` and `overhead`, the time added so far as a fraction
        of that of the training. Metrics without a value are left out. An error of the target is logged once, and the
        training goes on.

        Args:
            target: the module `mlflow`, a `SummaryWriter` of TensorBoard, a logger of Lightning, or a function of the
                metrics (a dictionary) and the step.
        Raises:
            InvalidConfig: it is something else.
        """
        self._metrics.add(target)

    @property
    def steps(self) -> int:
        """Number of steps so far [steps]."""
        return self._record.steps

    @property
    def events(self) -> list[NowcastEvent]:
        """The nowcasts so far."""
        return self._record.events

    @property
    def costs(self) -> list[NowcastCost]:
        """The times of the nowcasts; without a limit on the time, since the training began or was resumed."""
        return self._record.costs

    @property
    def overhead(self) -> float:
        """Time that the wrapper has added so far, as a fraction of the time of the training steps."""
        return self._record.budget.overhead

    @property
    def layout(self) -> Layout:
        """Names and shapes of the weights that are forecast."""
        return self._tracked.layout

    @property
    def average(self) -> ExponentialMovingAverage | None:
        """The running average of `averaged_weights`; None if there is none."""
        return self._tracked.averages.kept

    def predict(self) -> Float[Tensor, " weights"]:
        """Forecast the weights, or their running average, at one horizon after the last snapshot [raw units].

        The horizon is the first that the policy proposes at this step.
        """
        return self._tracked.forecasts.predict(self.policy.proposed(self.steps, guarded=bool(self._guard))[:1])[0]

    def nowcast(self, horizon: int) -> NowcastEvent | None:
        """Make a nowcast at one horizon now, beside those of the policy, which also decides about it.

        Args:
            horizon: time from the last snapshot to the forecast [steps].
        Returns: what happened; None without a snapshot.
        """
        self._steps.follow_groups()
        if not len(self._tracked.history):
            return None
        self._schedule.make((horizon,))
        return self.events[-1]

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """Replace the weights of the model by their running average inside the block; restore them exactly afterwards.

        If a forecast was accepted but did not move the weights, the average includes it until the next nowcast.

        Raises:
            InvalidConfig: there is no running average: the forecaster predicts the weights, and `ema` was not given.
        """
        self._steps.follow_groups()
        with self._kept.averaged(self.steps) as model:
            yield model

    @contextmanager
    def best_weights(self) -> Iterator[BestWeights]:
        """Keep the weights inside the block, or replace them by their running average: what the guard prefers.

        The guard measures both; one of `guard_from` does so on examples that no nowcast was measured on.

            with optimizer.best_weights() as best:
                torch.save(best.model.state_dict(), "best.pt")
            print(best.kind)

        Raises:
            InvalidConfig: there is no guard, or no running average (see `averaged_weights`).
        """
        self._steps.follow_groups()
        with self._kept.best(self.steps) as best:
            yield best

    def note_inputs(self, *inputs: Any) -> None:
        """Tell the inputs of a training pass, where no hook on the network sees them; for integrations."""
        self._passes.saw(*inputs)

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a step of the base optimizer, then a nowcast if one is due.

        Raises:
            LayoutMismatch: the parameter groups are no longer the trainable parameters of the model; or a nowcast is
                due, and some of these parameters were replaced, frozen or unfrozen.
        """
        return self._steps.take(closure)

    def _state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer and, with the key `nowcast`, the state of the nowcasts.

        Resumed training is bitwise identical to uninterrupted training. All values are tensors, numbers, strings,
        lists, tuples or dicts (or None), so `torch.load(weights_only=True)` can load them.
        """
        nowcast = {**self._record.state_dict(), **self._tracked.state_dict()}
        return with_nowcast_state(self.base.state_dict(), nowcast)

    def _load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state.

        Raises:
            CheckpointError: the state is incomplete, was not returned by `Nowcast.state_dict`, or is of another
                forecaster that learns from the training.
            LayoutMismatch: the snapshots in the state belong to another network.
        """
        base_state, nowcast = split_state(state_dict)
        self._steps.follow_groups()
        self._tracked.check_state(nowcast)
        self.base.load_state_dict(base_state)
        self._record.load_state_dict(nowcast)
        self._tracked.load_state_dict(nowcast)
        if self._record.budget.off:
            self._tracked.stop()

    def _warn(self, problem: str) -> None:
        if not self._warned:
            message = "%s at step %d; training continues. Further warnings are suppressed"
            log.warning(message, problem, self.steps)
            self._warned = True


def _check(moments: str, batchnorm_batches: int) -> None:
    """Check options of `Nowcast`.

    Raises:
        InvalidConfig: one of them is invalid.
    """
    if moments not in ("keep", "reset"):
        raise InvalidConfig(f"moments is {shown(moments)}; expected 'keep' or 'reset'")
    if isinstance(batchnorm_batches, bool) or not isinstance(batchnorm_batches, int) or batchnorm_batches < 0:
        raise InvalidConfig(f"batchnorm_batches is {shown(batchnorm_batches)}; expected a whole number, such as 8")
