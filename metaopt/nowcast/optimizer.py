"""`Nowcast`: a `torch.optim.Optimizer` that adds nowcasts to a base optimizer."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from .advice import warn_of_missing_functions, warn_of_stale_statistics
from .averages import RunningAverages
from .best_weights import BestWeights, preferred_weights
from .budget import TimeBudget
from .costs import NowcastCost, Stopwatch
from .data_guard import DataGuard
from .distributed import verdict_of_rank_0
from .forecasts import Forecasts
from .guard import Guard, GuardFunction
from .history import AverageOffset, History
from .memory import Memory
from .metrics import MetricTargets
from .model_state import ModelState, Saved, has_statistics, moved_by
from .movement import follow_weights
from .payoff import why_it_does_not_pay
from .policy import NowcastEvent, NowcastPolicy, make_policy
from .proposals import Proposal, Proposals, some_horizons
from .state import is_initialisation, split_state, with_nowcast_state
from .statistics import Replay, RunningStatistics
from .summary import summary_of
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
        if moments not in ("keep", "reset"):
            raise InvalidConfig(f"moments is {shown(moments)}; expected 'keep' or 'reset'")
        if isinstance(batchnorm_batches, bool) or not isinstance(batchnorm_batches, int) or batchnorm_batches < 0:
            raise InvalidConfig(f"batchnorm_batches is {shown(batchnorm_batches)}; expected a whole number, such as 8")
        self._budget, self._stopwatch = TimeBudget(max_overhead), Stopwatch()
        super().__init__(base)
        ModelState(model).check_moved_by(base)
        self.model = model
        self._follow_device = not isinstance(source, GenerativeOptimizer)
        self.forecaster: GenerativeOptimizer = load_optimizer(source) if self._follow_device else source
        self._averages = RunningAverages(self.forecaster.averaging, ema, guarded=guard is not None)
        self.moments = moments
        self.steps = 0
        self.events: list[NowcastEvent] = []
        self.costs: list[NowcastCost] = []
        guard_function = guard.bound_to(model, self._autocast) if isinstance(guard, DataGuard) else guard
        self._guard = Guard(guard_function, model, self._warn, self._stopwatch)
        self._reestimate = reestimate
        self._history_device, self._history_dtype = history_device, history_dtype
        self._warned = False
        self._passes: TrainingPasses | None = None
        keeps = batchnorm_batches if reestimate is None and has_statistics(model) else 0
        if keeps or isinstance(guard, DataGuard):
            self._passes = TrainingPasses(model, keeps, hooked=self._replay.hooked)
        self._metrics = MetricTargets()
        self._start_history()
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
        guard = self._guard.function
        return summary_of(
            self.base, self.forecaster, self.policy, guard, self.steps, self.events, self.costs, self._budget
        )

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

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a step of the base optimizer, then a nowcast if one is due.

        Raises:
            LayoutMismatch: the parameter groups are no longer the trainable parameters of the model; or a nowcast is
                due, and some of these parameters were replaced, frozen or unfrozen.
        """
        if is_initialisation(self.base):
            return self.base.step(closure)
        self._follow_groups()
        # Not in the constructor: weights may be loaded after construction.
        if not len(self._history) and self.policy.snapshot_due(self.steps) and not self._budget.off:
            self._take_snapshot(self._model_state.weights)
        loss = self.base.step(closure)
        device = self._model_state.device
        begin = self._budget.starts_upkeep(self.steps, device)
        self.steps += 1
        self._after_step()
        self._budget.end_step(begin, device)
        if self.policy.nowcast_due(self.steps) and not self._budget.off:
            self._nowcast_within_budget()
        return loss

    def _after_step(self) -> None:
        """Note what nowcasts need of a step: inputs of the network, running averages, a snapshot."""
        if self._passes and self._passes.note() and self._statistics:
            self._statistics.note()
        if not self.steps % self._budget.averaged_every:
            self._averages.update(self._model_state.weights, self._budget.averaged_every)
        if self.policy.snapshot_due(self.steps) and not self._budget.off:
            predicted = self._averages.predicted
            self._take_snapshot(self._model_state.weights if predicted is None else predicted.tensors)

    @property
    def average(self) -> ExponentialMovingAverage | None:
        """The running average of `averaged_weights`; None if there is none."""
        return self._averages.kept

    def predict(self) -> Float[Tensor, " weights"]:
        """Forecast the weights, or their running average, at one horizon after the last snapshot [raw units].

        The horizon is the first that the policy proposes at this step.
        """
        return self._forecasts.predict(self.policy.proposed(self.steps, guarded=bool(self._guard))[:1])[0]

    def nowcast(self, horizon: int) -> NowcastEvent | None:
        """Make a nowcast at one horizon now, beside those of the policy, which also decides about it.

        Args:
            horizon: time from the last snapshot to the forecast [steps].
        Returns: what happened; None without a snapshot.
        """
        self._follow_groups()
        if not len(self._history):
            return None
        self._measured_nowcast((horizon,))
        return self.events[-1]

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """Replace the weights of the model by their running average inside the block; restore them exactly afterwards.

        If a forecast was accepted but did not move the weights, the average includes it until the next nowcast.

        Raises:
            InvalidConfig: there is no running average: the forecaster predicts the weights, and `ema` was not given.
        """
        if self.average is None:
            raise InvalidConfig("there is no running average of the weights; set ema of Nowcast, for example ema=0.99")
        self._follow_groups()
        saved = self._model_state.save()
        try:
            if self.average.updates:
                averaged = self.layout.join(self.average.tensors)
                self.layout.write(self._model_state.model, self._offset.on(averaged, self.average.decay, self.steps))
                self._proposals.update_buffers()
                self._proposals.update_statistics()
            yield self.model
        finally:
            self._model_state.restore(saved)

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
        best = preferred_weights(self._guard, self._model_state, self.averaged_weights(), self.model, self.steps)
        with self.averaged_weights() if best.kind == "averaged" else nullcontext():
            yield best

    def note_inputs(self, *inputs: Any) -> None:
        """Tell the inputs of a training pass, where no hook on the network sees them; for integrations."""
        if self._passes is not None:
            self._passes.saw(*inputs)

    def _state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer and, with the key `nowcast`, the state of the nowcasts.

        Resumed training is bitwise identical to uninterrupted training. All values are tensors, numbers, strings,
        lists, tuples or dicts (or None), so `torch.load(weights_only=True)` can load them.
        """
        nowcast = {
            "steps": self.steps,
            "events": [list(event) for event in self.events],
            **self._history.state_dict(),
            **self._forecasts.state_dict(),
            "averages": self._averages.state_dict(),
            "lead": self._offset.state_dict(),
        }
        if budget := self._budget.state_dict():
            nowcast["budget"] = {**budget, "costs": [list(cost) for cost in self.costs]}
        return with_nowcast_state(self.base.state_dict(), nowcast)

    def _load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state.

        Raises:
            CheckpointError: the state is incomplete, was not returned by `Nowcast.state_dict`, or is of another
                forecaster that learns from the training.
            LayoutMismatch: the snapshots in the state belong to another network.
        """
        base_state, nowcast = split_state(state_dict)
        self._follow_groups()
        self._history.check_state(nowcast)
        self._forecasts.check_state(nowcast)
        self.base.load_state_dict(base_state)
        self.steps = nowcast["steps"]
        self.events = [NowcastEvent(*event) for event in nowcast["events"]]
        self._history.load_state_dict(nowcast)
        self._forecasts.load_state_dict(nowcast)
        self._offset.load_state_dict(nowcast["lead"])
        self._averages.load_state_dict(nowcast["averages"], self._model_state.weights)
        budget = nowcast.get("budget", {})
        self._budget.load_state_dict(budget)
        self.costs = [NowcastCost(*cost) for cost in budget.get("costs", [])]
        if self._budget.off:
            self._stop()

    def _start_history(self) -> None:
        """Begin an empty history of the weights that the base optimizer moves now."""
        self._model_state = ModelState(self.model)
        self._model_state.check_moved_by(self.base)
        self._moved = moved_by(self.base)
        self.layout = self._model_state.layout
        memory = Memory(self._model_state.device, self._history_device, self._history_dtype)
        self._stopwatch.device = self._model_state.device
        self._statistics: RunningStatistics | None = None
        if self._passes and self._passes.recent.maxlen:
            self._statistics = RunningStatistics(self.model, self._passes, self._replay, warn_of_stale_statistics)
        self._history = History(self.forecaster.history, self.layout, memory)
        self._offset = AverageOffset()
        self._forecasts = Forecasts(
            self.forecaster,
            self._history,
            self.layout,
            self._model_state.device,
            self._stopwatch,
            follow_device=self._follow_device,
        )
        self._proposals = Proposals(
            self._forecasts,
            self._model_state,
            self._history,
            self._guard,
            self.policy,
            self._reestimate,
            self._statistics,
            self._stopwatch,
            self._warn,
        )
        self._averages.reset()

    def _take_snapshot(self, weights: Sequence[Tensor]) -> None:
        """Add the present weights, or their running average, to the history; the forecaster learns from it."""
        self._history.add(self.steps, weights)
        self._forecasts.observe()

    def _follow_groups(self) -> None:
        """Begin a new history if the base optimizer moves other parameters than before, after `add_param_group`."""
        if moved_by(self.base) != self._moved:
            self._start_history()
            log.info("the parameter groups changed; the history starts again, of %s weights", f"{self.layout.size:,}")

    def _nowcast_within_budget(self) -> None:
        """Make the nowcast that is due as far as the time allows, and stop them if they do not pay."""
        device = self._model_state.device
        smallest = self._guard.smallest_share / len(self.policy.all_horizons) if self._guard else 1.0
        if (share := self._budget.plan(smallest, device)) is not None:
            horizons = () if share == 1 else some_horizons(self.policy.proposed(self.steps), share, self.events)
            self._measured_nowcast(horizons if self._guard else (), share)
            self._metrics.log(self.events[-1], self.costs[-1], self._budget)
            problem = why_it_does_not_pay(self.events, self.costs, self._budget.seconds_per_step)
            if self._budget.limited and verdict_of_rank_0(problem is not None, device):
                self._budget.off = problem or "rank 0 decided so"
                log.warning(
                    "nowcasts are off from step %d on: %s. The base optimizer goes on alone. max_overhead=None keeps "
                    "them on",
                    self.steps,
                    self._budget.off,
                )
                self._stop()
        self._budget.thin_averages(self.policy.stride, device)

    def _stop(self) -> None:
        """Drop what only nowcasts need; the average of `averaged_weights` goes on."""
        self._history.clear()
        self._averages.keep_only_kept()

    def _measured_nowcast(self, horizons: Sequence[int] = (), share: float = 1.0) -> None:
        with self._budget.nowcast():
            begin = self._stopwatch.start()
            self._guard.start(self.steps, share)
            try:
                self._nowcast(horizons)
            finally:
                self._guard.finish()
                cost = self._stopwatch.cost(self.steps, begin, share)
                self._budget.add_nowcast(cost)
        self.costs.append(cost)

    def _nowcast(self, horizons: Sequence[int] = ()) -> None:
        self._model_state.check_unchanged()
        self._offset.set(None, self.steps)
        if not verdict_of_rank_0(self._history.is_finite(), self._model_state.device):
            self._history.clear()
            self._averages.reset()
            self._warn("the history of weights is not finite and is cleared")
            self.events.append(NowcastEvent(self.steps, None, None, accepted=False))
            return
        with self._model_state.restored_on_error() as saved:
            before = self._proposals.losses_before(saved)
            diverged = before is not None and not bool(before.isfinite().all())
            best = None if diverged else self._proposals.best(self.steps, saved, horizons)
            accepted = best is not None and best.accepted(before)
            change = self._change(best) if best is not None and accepted else None
            followed = accepted and self._should_follow(change, saved)
            if best is not None and followed:
                self._move_to(best, change, saved)
            else:
                self._model_state.restore(saved)
                self._offset.set(change, self.steps)
        after, horizon = (None, None) if best is None else (_mean(best.losses), best.horizon)
        calls = self._guard.calls
        self.events.append(NowcastEvent(self.steps, _mean(before), after, accepted, horizon, followed, calls))

    def _should_follow(self, change: Tensor | None, saved: Saved) -> bool:
        """Whether an accepted forecast moves the weights.

        Always True without a guard, or if the weights themselves are predicted. Otherwise two conditions must hold: the
        last two displacements of the average are aligned (`NowcastPolicy.goes_straight`), and the change does not
        increase the guard losses of the short-term average by more than one standard error. The short-term average is
        close to the weights and has less noise.
        """
        if self._averages.short is None:
            return True
        history, decay = self._history.snapshots, self.forecaster.averaging
        aligned = bool(self.policy.goes_straight(history, self.forecaster.history, decay))
        if not verdict_of_rank_0(aligned, self._model_state.device):
            return False
        return self._proposals.tolerated(self.layout.join(self._averages.short.tensors), change, saved)

    def _change(self, best: Proposal) -> Tensor | None:
        """The predicted change of the running average: forecast − average. May overwrite `best.weights`.

        Returns: None if the weights themselves are predicted, and on all ranks except rank 0.
        """
        if self._averages.predicted is None or (forecast := self._proposals.weights_of(best)) is None:
            return None
        return forecast.sub_(self._history.snapshots.rows[-1].to(forecast.device))

    def _move_to(self, proposal: Proposal, change: Tensor | None, saved: Saved) -> None:
        """Move the weights, and add their change to all running averages and snapshots.

        The weights become the forecast. If their running average is predicted, `change` is added to them instead.
        """
        if self._averages.predicted is None:
            self._model_state.write(self._proposals.weights_of(proposal))
        else:
            self._model_state.restore(saved)
            self._model_state.add(change)
        if self._statistics is None:
            self._model_state.restore_buffers(proposal.buffers)
        else:
            self._model_state.restore_buffers(saved.buffers)
            if not all(map(torch.equal, self._model_state.weights, saved.weights)):
                self._proposals.update_statistics()
        follow_weights(self._model_state, saved, self._history, self._averages, self.base)
        if self.moments == "reset":
            for weights in self._model_state.weights:
                self.base.state.pop(weights, None)

    def _autocast(self) -> AbstractContextManager[Any]:
        """The autocast that was in force in the last forward pass of the training; none before the first one."""
        known = self._passes.autocast if self._passes else None
        return nullcontext() if known is None else known.on(self._model_state.device)

    def _warn(self, problem: str) -> None:
        if not self._warned:
            message = "%s at step %d; training continues. Further warnings are suppressed"
            log.warning(message, problem, self.steps)
            self._warned = True


def _mean(losses: Tensor | None) -> float | None:
    return None if losses is None else float(losses.mean())
