"""The optimizer that nowcasts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import CheckpointError, InvalidConfig
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..weights.averaging import SHORT, ExponentialMovingAverage
from ..weights.layout import is_finite
from .distributed import agreed, is_first, share
from .history import AverageOffset, History
from .model_state import ModelState, Saved
from .policy import (
    STRAIGHT,
    Losses,
    NowcastEvent,
    Proposal,
    better,
    check_schedule,
    check_straight,
    choose_horizons,
    goes_straight,
    mean,
    not_worse,
    within_reach,
)

log = logging.getLogger(__name__)

_AT_ONCE = 2**20  # weights of all horizons together that one call predicts; more only take memory, not less time
_STATE = ("steps", "events", "times", "history", "layout", "averages", "lead")


class Nowcast(torch.optim.Optimizer):
    """A base optimizer whose weights are, now and then, moved to where they are going, by a prediction.

    Where the generative optimizer is one of running averages (its `averaging`), it is shown the snapshots of that
    average and predicts it; the weights then move by as much as the average is predicted to. So a nowcast neither takes
    the noise out of the weights, which the next steps would bring back, nor loses what the average lags behind. Because
    it lags, going on can be good for the average where the weights have arrived already: then only the average in use
    (`averaged_weights`) takes the prediction, and training goes on as if there were none.

    It takes the base optimizer's place in a training loop, with schedulers, closures, parameter groups and a
    `GradScaler`: both share `param_groups` and `state`. Where `torch.distributed` trains one network in several
    processes, all of them predict at the same steps and call their guards, and the first one's predictions and losses
    count. `docs/nowcast.md` shows how.

    Args:
        base: moves the weights at every step; over all trainable weights of the model.
        model: the network being trained.
        optimizer: predicts its weights: a generative optimizer, or what `load_optimizer` takes: a file, `builtin`, or
            an address such as `models:/metaopt-perceiver@champion`. One that is loaded follows the model's device.
        every: steps from one nowcast to the next; a multiple of the stride [steps].
        stride: steps between the snapshots that the prediction is made from [steps].
        horizon: how far ahead a prediction looks [steps].
        horizons: several instead, of which the guard keeps the best; only those up to half of the steps so far are
            proposed, and always the shortest. Without a guard only the first is used [steps].
            Where neither is given, four from half to eight times `every`; without a guard just `every`.
        guard: the loss on data held out from this training, or a tensor with the loss of each example, called without
            gradients before a nowcast and after each proposal, with the running average in the model where that is what
            is predicted; the best one stays if its loss did not rise, or its losses fell by more than chance. The
            weights follow where training goes straight on and those of a shorter average of them did not rise, or by no
            more than chance. It should leave the model's mode as it was. Without a guard every finite prediction stays,
            also one that does harm.
        reestimate: called after weights were replaced and before the guard looks again, to bring up to date what
            depends on them (see `reestimate_batchnorm`).
        ema: decay of the running average for `averaged_weights`, which moves with the weights when a nowcast stays;
            the one that the generative optimizer is shown unless given.
        moments: what a nowcast that stays does to the base optimizer's state: `keep` it, or `reset` it.
        straight: how straight a training must go for its weights to follow, the cosine between two displacements of the
            average that follow each other; −1 asks the guard alone, from the third snapshot on [1].
    Raises:
        InvalidConfig: steps that are not positive whole numbers, `every` is not a multiple of `stride`, or a value of
            `ema`, `moments` or `straight` that does not exist.
        LayoutMismatch: the base optimizer moves other parameters than the model's trainable ones.
        UnknownName, TrackingError, FileFormatError: the optimizer cannot be loaded from there.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module,
        optimizer: GenerativeOptimizer | str | Path,
        *,
        every: int = 40,
        stride: int = 20,
        horizon: int | None = None,
        horizons: Sequence[int] | None = None,
        guard: Callable[[], Tensor | float] | None = None,
        reestimate: Callable[[], None] | None = None,
        ema: float | None = None,
        moments: Literal["keep", "reset"] = "keep",
        straight: float = STRAIGHT,
    ) -> None:
        check_schedule(every, stride, *(horizons or ()), *(() if horizon is None else (horizon,)))
        self.horizons = choose_horizons(every, stride, horizon, horizons, guarded=guard is not None)
        if moments not in ("keep", "reset"):
            raise InvalidConfig(f"moments is {moments!r}; expected 'keep' or 'reset'")
        check_straight(straight)
        self._space = ModelState(model)
        self._space.check_moved_by(base)
        wanted = None if ema is None else ExponentialMovingAverage(ema)
        super().__init__(base.param_groups, base.defaults)
        self.base, self.model, self.layout = base, model, self._space.layout
        self._loaded = not isinstance(optimizer, GenerativeOptimizer)
        self.optimizer = optimizer if isinstance(optimizer, GenerativeOptimizer) else load_optimizer(optimizer)
        decay = self.optimizer.averaging
        self._shown = ExponentialMovingAverage(decay) if decay else None
        self._recent = ExponentialMovingAverage(SHORT) if decay and guard is not None else None
        self.average = wanted or self._shown
        self.every, self.stride, self.moments, self.straight = every, stride, moments, straight
        self.guard, self.reestimate = guard, reestimate
        self.steps = 0
        self.events: list[NowcastEvent] = []
        self._past = History(self.optimizer.history, self.layout)
        self._lead = AverageOffset()
        self._warned = False
        self._looks = 0  # of the guard in this nowcast
        self._share()

    @property
    def horizon(self) -> int:
        """The first horizon, the only one without a guard [steps]."""
        return self.horizons[0]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let the base optimizer take a step, then nowcast where one is due.

        Returns: what the closure returned, the loss before the step.
        Raises:
            LayoutMismatch: a nowcast is due, but the model's trainable weights are others than when this was built.
        """
        if not len(self._past):  # here and not earlier: a caller may load weights between construction and training
            self._past.add(self.steps, self._space.named)
        loss = self.base.step(closure)
        self.steps += 1
        for average in self._averages:
            average.update(self._space.weights)
        if self.steps % self.stride == 0:
            self._past.add(self.steps, self._space.named if self._shown is None else self._named(self._shown))
        if self.steps % self.every == 0:
            self._nowcast()
        return loss

    def predict(self) -> Float[Tensor, " weights"]:
        """What the generative optimizer expects `horizon` steps after the last snapshot: the weights, or their average.

        Returns: in raw units.
        """
        return self._predict(self.horizons[:1])[0].cpu()

    @contextmanager
    def averaged_weights(self) -> Iterator[nn.Module]:
        """Put the running average into the model, for evaluation; what was there comes back exactly.

        Where a prediction was good for the average, but not for the weights, it counts until the next nowcast.

        Raises:
            InvalidConfig: there is no average, because `ema` was not given.
        """
        if self.average is None:
            raise InvalidConfig("there is no running average of the weights; build Nowcast with ema=0.99, for example")
        saved = self._space.save()
        try:
            if self.average.updates:
                averaged = self.layout.flatten(self._named(self.average))
                self.layout.write(self._space.model, self._lead.on(averaged, self.average.decay, self.steps))
                self._bring_up_to_date()
            yield self.model
        finally:
            self._space.restore(saved)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state and, under `nowcast`, history and counters: enough to resume bit by bit.

        All of it is tensors, numbers, strings, lists and dicts, which `torch.load(weights_only=True)` reads.
        """
        nowcast = {
            "steps": self.steps,
            "events": [list(event) for event in self.events],
            **self._past.state_dict(),
            "averages": [average.state_dict() for average in self._averages],
            "lead": self._lead.state_dict(),
        }
        return {**self.base.state_dict(), "nowcast": nowcast}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            CheckpointError: it is the state of another kind of optimizer, or lacks a part.
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
                "damaged. Load only the base optimizer's part of it, and the history begins anew"
            )
        self._past.check_state(nowcast)
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "nowcast"})
        self._share()
        self.steps = nowcast["steps"]
        self.events = [NowcastEvent(*event) for event in nowcast["events"]]
        self._past.load_state_dict(nowcast)
        self._lead.load_state_dict(nowcast["lead"])
        saved = {state["decay"]: state for state in nowcast["averages"]}
        for average in self._averages:
            if average.decay in saved:
                average.load_state_dict(saved[average.decay], self._space.weights)

    def _share(self) -> None:
        """Be the same optimizer as the base to whoever looks from outside, such as a learning-rate scheduler."""
        self.param_groups, self.state, self.defaults = self.base.param_groups, self.base.state, self.base.defaults

    @property
    def _averages(self) -> list[ExponentialMovingAverage]:
        """All that are kept: for use, to predict from, which is often the same, and to see where the weights stand."""
        kept = dict.fromkeys([self.average, self._shown, self._recent])
        return [average for average in kept if average is not None]

    def _nowcast(self) -> None:
        self._space.check_unchanged()
        self._lead.set(None, self.steps)
        self._looks = 0
        if not self._agreed(self._past.is_finite()):
            self._past.clear()
            for average in self._averages:
                average.forget()
            self._warn("the history of weights is not finite and is dropped")
            self.events.append(NowcastEvent(self.steps, None, None, accepted=False))
            return
        with self._space.undone_on_error() as saved:
            before = self._before(saved)
            hopeless = before is not None and not bool(before.isfinite().all())
            best = None if hopeless else min(self._proposals(saved), key=lambda each: each.rank, default=None)
            accepted = best is not None and better(before, best.losses)
            change = self._change(best) if best is not None and accepted else None
            followed = accepted and self._weights_should_follow(change, saved)
            if best is not None and followed:
                self._go_on_from(best, change, saved)
            else:
                self._space.restore(saved)
                self._lead.set(change, self.steps)
        after, horizon = (None, None) if best is None else (mean(best.losses), best.horizon)
        self.events.append(NowcastEvent(self.steps, mean(before), after, accepted, horizon, followed, self._looks))

    def _before(self, saved: Saved) -> Losses | None:
        """What the guard sees of what a prediction starts from."""
        if self.guard is not None and self._shown is not None:
            self._try_on(self._past.weights[-1], saved)
        return self._look()

    def _weights_should_follow(self, change: Tensor | None, saved: Saved) -> bool:
        """Whether the training goes straight on, and what is good for the long average is good for the weights, too."""
        if self._recent is None:
            return True
        shown, decay = self.optimizer.history, self.optimizer.averaging
        straight = goes_straight(self._past.weights, shown, self.stride, decay, self.straight)
        if not self._agreed(bool(straight)):
            return False
        here = self.layout.flatten(self._named(self._recent))
        self._try_on(here, saved)
        before = self._look()
        self._try_on(None if change is None else here.add_(change), saved)
        return not_worse(before, self._look())

    def _change(self, best: Proposal) -> Tensor | None:
        """What a prediction adds to the average; None where it is of none, or in processes that wait for the first.

        It takes the memory of the prediction, which is not needed any more.
        """
        if self._shown is None or best.weights is None:
            return None
        return best.weights.cpu().sub_(self._past.weights[-1])

    def _try_on(self, weights: Tensor | None, saved: Saved) -> None:
        """Put weights into the network, with buffers as if nothing had been tried before."""
        self._space.restore_buffers(saved.buffers)
        self._space.write(weights)
        self._bring_up_to_date()

    def _proposals(self, saved: Saved) -> Iterator[Proposal]:
        """All that is worth a look, tried one after the other."""
        for horizon, weights in self._candidates():
            if not self._agreed(weights is None or is_finite(weights)):
                self._warn("a prediction of the weights is not finite")
                continue
            self._try_on(weights, saved)
            buffers = self._space.save_buffers()  # before the guard looks, which may be in training mode
            yield Proposal(horizon, weights, buffers, self._look())

    def _candidates(self) -> Iterator[tuple[int, Tensor | None]]:
        """Horizons and weights; no weights in processes that wait for the first one's."""
        horizons = within_reach(self.horizons, self.steps) if self.guard else self.horizons[:1]
        at_once = len(horizons) if len(horizons) * self.layout.size <= _AT_ONCE else 1
        for start in range(0, len(horizons), at_once):
            some = horizons[start : start + at_once]
            yield from zip(some, self._predict(some) if is_first() else [None] * len(some), strict=True)

    def _predict(self, horizons: Sequence[int]) -> Float[Tensor, "horizons weights"]:
        """Predictions for several horizons from one history, which is not copied for each."""
        if self._loaded:
            self.optimizer.to(self._space.device)
        device = next((parameter.device for parameter in self.optimizer.parameters()), torch.device("cpu"))
        history = self._past.weights.to(device).expand(len(horizons), -1, -1)
        times = torch.tensor([float(step) for step in self._past.times], device=device).expand(len(horizons), -1)
        ahead = torch.tensor([float(horizon) for horizon in horizons], device=device)
        return self.optimizer.predict(history, times, times[:, -1] + ahead, self.layout)

    def _named(self, average: ExponentialMovingAverage) -> dict[str, Tensor]:
        return dict(zip(self._space.named, average.tensors, strict=True))

    def _bring_up_to_date(self) -> None:
        if self.reestimate is not None:
            self.reestimate()
        share(self._space.model.buffers())

    def _go_on_from(self, proposal: Proposal, change: Tensor | None, saved: Saved) -> None:
        """Move the weights, and with them all that follows them: averages and snapshots keep how they differ."""
        if self._shown is None:
            self._space.write(proposal.weights)
        else:
            self._space.restore(saved)
            self._space.add(change)
        self._space.restore_buffers(proposal.buffers)
        for number, (now, before) in enumerate(zip(self._space.weights, saved.weights, strict=True)):
            moved = (now.detach() - before).float()  # the same in all processes
            self._past.shift(number, moved)
            for average in self._averages:
                average.shift(number, moved)
        if self.moments == "reset":
            for weights in self._space.weights:
                self.base.state.pop(weights, None)

    @torch.no_grad()
    def _look(self) -> Losses | None:
        if self.guard is None:
            return None
        self._looks += 1
        seen = torch.as_tensor(self.guard(), dtype=torch.float64).detach().cpu().flatten()
        losses = agreed(seen, self._space.device)
        if not bool(losses.isfinite().all()):
            self._warn("the guard's loss is not finite")
        return losses

    def _agreed(self, verdict: bool) -> bool:
        return bool(agreed(torch.tensor([float(verdict)]), self._space.device))

    def _warn(self, what: str) -> None:
        if not self._warned:
            log.warning("%s at step %d: nowcast rejected, training goes on; said only once", what, self.steps)
            self._warned = True
