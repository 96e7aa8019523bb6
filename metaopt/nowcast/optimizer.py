"""The optimizer that nowcasts: `Nowcast`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import CheckpointError, InvalidConfig
from ..core.moved import renamed_keywords
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..weights.averaging import SHORT_DECAY, ExponentialMovingAverage
from ..weights.layout import is_finite
from .distributed import agreed, is_first, share
from .guard import Guard, GuardFunction
from .history import AverageOffset, History
from .model_state import ModelState, Saved
from .policy import NowcastEvent, NowcastPolicy, accepts, as_horizons, rank, tolerates

log = logging.getLogger(__name__)

_WEIGHTS_AT_ONCE = 2**20  # of all horizons together in one forward pass; more only take memory, not less time
_STATE = ("steps", "events", "times", "history", "layout", "averages", "lead")
_OLD_KEYWORDS = {"optimizer": "forecaster", "horizon": "horizons", "straight": "min_cosine"}


class Nowcast(torch.optim.Optimizer):
    """Wraps a base optimizer and periodically replaces the weights by a forecast of a generative optimizer.

    It takes the base optimizer's place in a training loop, with schedulers, closures, parameter groups and a
    `GradScaler`; both share `param_groups` and `state`.

        import torch, metaopt

        task = metaopt.load_task("digits")
        model = metaopt.get_target_model("MLP", task.model_facts)
        held_out = task.splits["guard"][:]
        base = torch.optim.Adam(model.parameters(), lr=1e-3)
        guard = lambda: task.losses(model(held_out.inputs), held_out.labels)
        optimizer = metaopt.Nowcast(base, model, "builtin", guard=guard)
        for inputs, labels in task.batches(batch_size=64, seed=0, epoch=0):
            optimizer.zero_grad()
            task.loss(model(inputs), labels).backward()
            optimizer.step()
        with optimizer.averaged_weights():
            print(guard().mean())

    If the forecaster predicts a running average of the weights (its `averaging`), the weights move by the predicted
    change of the average: w ← w + (forecast − average). A forecast can be good for the average, which lags behind,
    where the weights have arrived already. Then only `averaged_weights` uses it, and training goes on unchanged.

    With `torch.distributed`, all processes call their guards at the same steps; the forecasts and losses of the first
    process count.

    Args:
        base: moves the weights at every step; over all trainable weights of the model.
        model: the network being trained.
        forecaster: a generative optimizer, or what `load_optimizer` takes: a file, `builtin`, or an address such as
            `models:/metaopt-perceiver@champion`. One that is loaded follows the model's device.
        policy: when nowcasts happen, what they propose, what is accepted and followed; in place of the next four.
        every: steps from one nowcast to the next, a multiple of the stride; 40 by default [steps].
        stride: steps between the snapshots of the history; 20 by default [steps].
        horizons: how far ahead forecasts look, one or several, of which the guard keeps the best. Four from half to
            eight times `every` by default; without a guard the first one, or `every` [steps].
        min_cosine: how straight a training must go for its weights to follow, the cosine between two successive
            displacements of the average; 0.7 by default, −1 asks the guard alone [1].
        guard: returns the loss on data held out from this training, or a tensor with the loss of each example. Called
            without gradients before a nowcast and after each proposal, with the average in the model if that is what is
            predicted. Losses of examples must fall by more than their standard error. It should leave the model's mode
            as it was. Without a guard every finite forecast stays, also a harmful one.
        reestimate: called after weights were replaced and before the guard, to update what depends on the weights (see
            `reestimate_batchnorm`).
        ema: decay of the running average for `averaged_weights`; that of the forecaster by default.
        moments: whether the base optimizer's state is kept or reset (`keep`, `reset`) when a nowcast moves the weights.
    Raises:
        InvalidConfig: a policy that cannot be, `policy` together with one of its parameters, or an unknown value of
            `ema` or `moments`.
        LayoutMismatch: the base optimizer moves other parameters than the model's trainable ones.
        UnknownName, TrackingError, FileFormatError: the forecaster cannot be loaded.
    """

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
        guard: GuardFunction | None = None,
        reestimate: Callable[[], None] | None = None,
        ema: float | None = None,
        moments: Literal["keep", "reset"] = "keep",
        **old_keywords: Any,
    ) -> None:
        given: dict[str, Any] = {"forecaster": forecaster, "horizons": horizons, "min_cosine": min_cosine}
        renamed_keywords("Nowcast", old_keywords, _OLD_KEYWORDS, given)
        source = given.pop("forecaster")
        if source is None:
            raise TypeError("Nowcast needs a forecaster: a generative optimizer, a file, or `builtin`")
        self.policy = _policy(policy, every=every, stride=stride, **given)
        if moments not in ("keep", "reset"):
            raise InvalidConfig(f"moments is {moments!r}; expected 'keep' or 'reset'")
        self._network = ModelState(model)
        self._network.check_moved_by(base)
        in_use = None if ema is None else ExponentialMovingAverage(ema)
        super().__init__(base.param_groups, base.defaults)
        self.base, self.model, self.layout = base, model, self._network.layout
        self._loaded = not isinstance(source, GenerativeOptimizer)
        self.forecaster = source if isinstance(source, GenerativeOptimizer) else load_optimizer(source)
        decay = self.forecaster.averaging
        self._predicted = ExponentialMovingAverage(decay) if decay else None
        self._short = ExponentialMovingAverage(SHORT_DECAY) if decay and guard is not None else None
        self.average = in_use or self._predicted
        self.moments, self.reestimate = moments, reestimate
        self.steps = 0
        self.events: list[NowcastEvent] = []
        self._guard = Guard(guard, self._warn)
        self._history = History(self.forecaster.history, self.layout)
        self._offset = AverageOffset()
        self._warned = False
        self._share_with_base()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let the base optimizer take a step, then nowcast if one is due.

        Returns: what the closure returned, the loss before the step.
        Raises:
            LayoutMismatch: a nowcast is due, but the model's trainable weights have changed since this was built.
        """
        if not len(self._history):  # here and not earlier: a caller may load weights between construction and training
            self._history.add(self.steps, self._network.named)
        loss = self.base.step(closure)
        self.steps += 1
        for average in self._averages:
            average.update(self._network.weights)
        if self.policy.snapshot_due(self.steps):
            predicted = self._predicted
            self._history.add(self.steps, self._network.named if predicted is None else self._named(predicted))
        if self.policy.nowcast_due(self.steps):
            self._nowcast()
        return loss

    def predict(self) -> Float[Tensor, " weights"]:
        """Forecast the weights, or their average, at the first horizon after the last snapshot [raw units]."""
        return self._predict(self.policy.proposed(self.steps, guarded=bool(self._guard))[:1])[0].cpu()

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """Put the running average into the model while the block runs, for evaluation; then restore it exactly.

        A forecast that was accepted for the average, but not followed by the weights, counts until the next nowcast.

        Raises:
            InvalidConfig: there is no average, because `ema` was not given.
        """
        if self.average is None:
            raise InvalidConfig("there is no running average of the weights; build Nowcast with ema=0.99, for example")
        saved = self._network.save()
        try:
            if self.average.updates:
                averaged = self.layout.flatten(self._named(self.average))
                self.layout.write(self._network.model, self._offset.on(averaged, self.average.decay, self.steps))
                self._update_buffers()
            yield self.model
        finally:
            self._network.restore(saved)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state and, under `nowcast`, history and counters: enough to resume bit by bit.

        All of it is tensors, numbers, strings, lists and dicts, which `torch.load(weights_only=True)` reads.
        """
        nowcast = {
            "steps": self.steps,
            "events": [list(event) for event in self.events],
            **self._history.state_dict(),
            "averages": [average.state_dict() for average in self._averages],
            "lead": self._offset.state_dict(),
        }
        return {**self.base.state_dict(), "nowcast": nowcast}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: it is the state of another kind of optimizer, or incomplete.
            LayoutMismatch: its history is of another network. Nothing is changed in either case.
        """
        if "nowcast" not in state_dict:
            raise CheckpointError(
                "this optimizer state has no history of weights; expected one that Nowcast.state_dict() gave. "
                "To start from a plain base optimizer, load its state into that before wrapping it"
            )
        nowcast = state_dict["nowcast"]
        if missing := [name for name in _STATE if name not in nowcast]:
            raise CheckpointError(
                f"this optimizer state has no {', '.join(missing)}: another version of metaopt wrote it, or it is "
                "damaged. Load only the base optimizer's part of it; the history then starts empty"
            )
        self._history.check_state(nowcast)
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "nowcast"})
        self._share_with_base()
        self.steps = nowcast["steps"]
        self.events = [NowcastEvent(*event) for event in nowcast["events"]]
        self._history.load_state_dict(nowcast)
        self._offset.load_state_dict(nowcast["lead"])
        saved = {state["decay"]: state for state in nowcast["averages"]}
        for average in self._averages:
            if average.decay in saved:
                average.load_state_dict(saved[average.decay], self._network.weights)

    def _share_with_base(self) -> None:
        """Have the base optimizer's attributes, which learning-rate schedulers read and change."""
        self.param_groups, self.state, self.defaults = self.base.param_groups, self.base.state, self.base.defaults

    @property
    def _averages(self) -> list[ExponentialMovingAverage]:
        """The averages kept: the one in use, the one that is predicted (often the same), and the short one."""
        kept = dict.fromkeys([self.average, self._predicted, self._short])
        return [average for average in kept if average is not None]

    def _nowcast(self) -> None:
        self._network.check_unchanged()
        self._offset.set(None, self.steps)
        self._guard.calls = 0
        if not self._agreed(self._history.is_finite()):
            self._history.clear()
            for average in self._averages:
                average.reset()
            self._warn("the history of weights is not finite and is dropped")
            self.events.append(NowcastEvent(self.steps, None, None, accepted=False))
            return
        with self._network.restored_on_error() as saved:
            before = self._losses_before(saved)
            diverged = before is not None and not bool(before.isfinite().all())
            best = None if diverged else min(self._proposals(saved), key=lambda each: each.rank, default=None)
            accepted = best is not None and _accepted(before, best.losses)
            change = self._change(best) if best is not None and accepted else None
            followed = accepted and self._should_follow(change, saved)
            if best is not None and followed:
                self._move_to(best, change, saved)
            else:
                self._network.restore(saved)
                self._offset.set(change, self.steps)
        after, horizon = (None, None) if best is None else (_mean(best.losses), best.horizon)
        calls = self._guard.calls
        self.events.append(NowcastEvent(self.steps, _mean(before), after, accepted, horizon, followed, calls))

    def _losses_before(self, saved: Saved) -> Tensor | None:
        """The guard's losses of what the forecast starts from."""
        if self._guard and self._predicted is not None:
            self._try(self._history.weights[-1], saved)
        return self._guard.losses(self._network.device)

    def _should_follow(self, change: Tensor | None, saved: Saved) -> bool:
        """Whether the training goes straight, and the change does not harm the weights without most of their noise."""
        if self._short is None:
            return True
        decay = self.forecaster.averaging
        if not self._agreed(bool(self.policy.goes_straight(self._history.weights, self.forecaster.history, decay))):
            return False
        here = self.layout.flatten(self._named(self._short))
        self._try(here, saved)
        before = self._guard.losses(self._network.device)
        self._try(None if change is None else here.add_(change), saved)
        after = self._guard.losses(self._network.device)
        return before is None or after is None or bool(tolerates(before, after))

    def _change(self, best: "_Proposal") -> Tensor | None:
        """What a forecast adds to the average; None if it is of the weights, or in processes other than the first.

        It reuses the memory of the forecast, which is not needed any more.
        """
        if self._predicted is None or best.weights is None:
            return None
        return best.weights.cpu().sub_(self._history.weights[-1])

    def _try(self, weights: Tensor | None, saved: Saved) -> None:
        """Put weights into the network, with buffers as if nothing had been tried before."""
        self._network.restore_buffers(saved.buffers)
        self._network.write(weights)
        self._update_buffers()

    def _proposals(self, saved: Saved) -> Iterator["_Proposal"]:
        """All finite forecasts, each tried in the network and measured by the guard."""
        for horizon, weights in self._forecasts():
            if not self._agreed(weights is None or is_finite(weights)):
                self._warn("a prediction of the weights is not finite")
                continue
            self._try(weights, saved)
            buffers = self._network.save_buffers()  # before the guard is called, which may be in training mode
            yield _Proposal(horizon, weights, buffers, self._guard.losses(self._network.device))

    def _forecasts(self) -> Iterator[tuple[int, Tensor | None]]:
        """Horizons and weights; no weights in processes other than the first."""
        horizons = self.policy.proposed(self.steps, guarded=bool(self._guard))
        at_once = len(horizons) if len(horizons) * self.layout.size <= _WEIGHTS_AT_ONCE else 1
        for start in range(0, len(horizons), at_once):
            some = horizons[start : start + at_once]
            yield from zip(some, self._predict(some) if is_first() else [None] * len(some), strict=True)

    def _predict(self, horizons: Sequence[int]) -> Float[Tensor, "horizons weights"]:
        """Forecasts for several horizons from one history, which is not copied for each."""
        if self._loaded:
            self.forecaster.to(self._network.device)
        device = next((parameter.device for parameter in self.forecaster.parameters()), torch.device("cpu"))
        history = self._history.weights.to(device).expand(len(horizons), -1, -1)
        times = torch.tensor([float(step) for step in self._history.times], device=device).expand(len(horizons), -1)
        ahead = torch.tensor([float(horizon) for horizon in horizons], device=device)
        return self.forecaster.predict(history, times, times[:, -1] + ahead, self.layout)

    def _named(self, average: ExponentialMovingAverage) -> dict[str, Tensor]:
        return dict(zip(self._network.named, average.tensors, strict=True))

    def _update_buffers(self) -> None:
        if self.reestimate is not None:
            self.reestimate()
        share(self._network.model.buffers())

    def _move_to(self, proposal: "_Proposal", change: Tensor | None, saved: Saved) -> None:
        """Move the weights; averages and snapshots move along and keep their distance to them."""
        if self._predicted is None:
            self._network.write(proposal.weights)
        else:
            self._network.restore(saved)
            self._network.add(change)
        self._network.restore_buffers(proposal.buffers)
        for number, (now, before) in enumerate(zip(self._network.weights, saved.weights, strict=True)):
            moved = (now.detach() - before).float()  # the same in all processes
            self._history.shift(number, moved)
            for average in self._averages:
                average.shift(number, moved)
        if self.moments == "reset":
            for weights in self._network.weights:
                self.base.state.pop(weights, None)

    def _agreed(self, verdict: bool) -> bool:
        return bool(agreed(torch.tensor([float(verdict)]), self._network.device))

    def _warn(self, what: str) -> None:
        if not self._warned:
            log.warning("%s at step %d: nowcast rejected, training goes on; said only once", what, self.steps)
            self._warned = True


class _Proposal(NamedTuple):
    """Weights that were tried, with the buffers and the guard's losses that belong to them."""

    horizon: int
    weights: Tensor | None
    buffers: list[Tensor]
    losses: Float[Tensor, " examples"] | None

    @property
    def rank(self) -> float:
        """The lowest is the best; without a guard it is the first."""
        return 0.0 if self.losses is None else float(rank(self.losses))


def _policy(policy: NowcastPolicy | None, **parameters: Any) -> NowcastPolicy:
    given = {name: value for name, value in parameters.items() if value is not None}
    if policy is not None:
        if given:
            raise InvalidConfig(f"policy and {', '.join(given)} are given; put all of them in the policy")
        return policy
    if "horizons" in given:
        given["horizons"] = as_horizons(given["horizons"])
    return NowcastPolicy(**given)


def _accepted(before: Tensor | None, after: Tensor | None) -> bool:
    return before is None or after is None or bool(accepts(before, after))


def _mean(losses: Tensor | None) -> float | None:
    return None if losses is None else float(losses.mean())
