"""Use a generative optimizer inside an ordinary PyTorch training."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from .errors import CheckpointError, InvalidConfig, LayoutMismatch
from .optimizers.base import GenerativeOptimizer
from .weights.layout import Layout, trainable

log = logging.getLogger(__name__)


class NowcastEvent(NamedTuple):
    """One nowcast that was proposed; losses are the guard's, None where it was not asked."""

    step: int
    loss_before: float | None
    loss_after: float | None
    accepted: bool


class Nowcast(torch.optim.Optimizer):
    """A base optimizer whose weights are, now and then, replaced by a prediction of where they are going.

    It takes the base optimizer's place in a training loop, with schedulers, closures and parameter groups: both share
    `param_groups` and `state`, and a nowcast leaves the base optimizer's moments as they are.

    Args:
        base: moves the weights at every step; over all trainable weights of the model.
        model: the network being trained.
        optimizer: predicts its weights.
        every: steps from one nowcast to the next; a multiple of the stride [steps].
        stride: steps between the snapshots that the prediction is made from [steps].
        horizon: how far ahead a prediction looks; as far as `every` unless given [steps].
        guard: the loss on data held out from this training, called without gradients before and after a nowcast,
            which stays only if the loss did not rise. It should leave the model's mode as it was. Without a guard
            every finite prediction stays, also one that does harm.
        reestimate: called after weights were replaced and before the guard looks again, to bring up to date what
            depends on them (see `reestimate_batchnorm`).
    Raises:
        InvalidConfig: steps that are not positive whole numbers, or `every` is not a multiple of `stride`.
        LayoutMismatch: the base optimizer moves other parameters than the model's trainable ones.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module,
        optimizer: GenerativeOptimizer,
        *,
        every: int = 120,
        stride: int = 20,
        horizon: int | None = None,
        guard: Callable[[], Tensor | float] | None = None,
        reestimate: Callable[[], None] | None = None,
    ) -> None:
        self.horizon = every if horizon is None else horizon
        check_schedule(every, stride, self.horizon)
        _check_parameters(base, model)
        super().__init__(base.param_groups, base.defaults)
        self.base, self.model, self.optimizer = base, model, optimizer
        self.every, self.stride = every, stride
        self.guard, self.reestimate = guard, reestimate
        self.layout = Layout.of(model)
        self.steps = 0
        self.events: list[NowcastEvent] = []
        self._history: deque[tuple[int, Tensor]] = deque(maxlen=optimizer.history)
        self._warned = False
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let the base optimizer take a step, then nowcast where one is due.

        Returns: what the closure returned, the loss before the step.
        """
        if not self._history:  # here and not earlier: a caller may load weights between construction and training
            self._record()
        loss = self.base.step(closure)
        self.steps += 1
        if self.steps % self.stride == 0:
            self._record()
        if self.steps % self.every == 0:
            self._nowcast()
        return loss

    def predict(self) -> Float[Tensor, " weights"]:
        """The weights that the generative optimizer expects `horizon` steps after the last snapshot [raw units]."""
        device = next((parameter.device for parameter in self.optimizer.parameters()), torch.device("cpu"))
        times = torch.tensor([[float(step) for step, _ in self._history]], device=device)
        history = torch.stack([weights for _, weights in self._history]).unsqueeze(0).to(device)
        return self.optimizer.predict(history, times, times[:, -1] + self.horizon, self.layout)[0].cpu()

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state and, under `nowcast`, history and counters: enough to resume bit by bit."""
        nowcast = {
            "steps": self.steps,
            "times": [step for step, _ in self._history],
            "history": [weights.clone() for _, weights in self._history],
            "events": [tuple(event) for event in self.events],
        }
        return {**self.base.state_dict(), "nowcast": nowcast}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            CheckpointError: it is the state of another kind of optimizer.
            LayoutMismatch: its history is of another network. Nothing is changed in either case.
        """
        if "nowcast" not in state_dict:
            raise CheckpointError(
                "this optimizer state has no history of weights; expected one that Nowcast.state_dict() gave. "
                "To start from a plain base optimizer, load its state into that before wrapping it"
            )
        nowcast = state_dict["nowcast"]
        for weights in nowcast["history"]:
            self.layout.check_size(weights)
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "nowcast"})
        self._share()
        self.steps = nowcast["steps"]
        self.events = [NowcastEvent(*event) for event in nowcast["events"]]
        past = zip(nowcast["times"], nowcast["history"], strict=True)
        self._history = deque(((step, weights.clone()) for step, weights in past), maxlen=self._history.maxlen)

    def _share(self) -> None:
        """Be the same optimizer as the base to whoever looks from outside, such as a learning-rate scheduler."""
        self.param_groups, self.state, self.defaults = self.base.param_groups, self.base.state, self.base.defaults

    def _record(self) -> None:
        self._history.append((self.steps, self.layout.read(self.model)))

    def _nowcast(self) -> None:
        proposal = self.predict()
        if not proposal.isfinite().all():
            self._warn("a prediction of the weights is not finite")
            self.events.append(NowcastEvent(self.steps, None, None, accepted=False))
            return
        saved = _copy_state(self.model)
        before = self._look()
        self.layout.write(self.model, proposal)
        if self.reestimate is not None:
            self.reestimate()
        after = self._look()
        accepted = before is None or after is None or 0 <= before - after < math.inf
        self.events.append(NowcastEvent(self.steps, before, after, accepted))
        if accepted:
            self._history.clear()  # older differences do not describe the path that starts here
            self._record()
        else:
            _restore_state(self.model, saved)

    @torch.no_grad()
    def _look(self) -> float | None:
        if self.guard is None:
            return None
        loss = float(self.guard())
        if not math.isfinite(loss):
            self._warn("the guard's loss is not finite")
        return loss

    def _warn(self, what: str) -> None:
        if not self._warned:
            log.warning("%s at step %d: nowcast rejected, training goes on; said only once", what, self.steps)
            self._warned = True


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Estimate the running statistics of all BatchNorm layers anew, as the mean over some batches of training inputs.

    Args:
        model: left as it is where it has no such layer.
        batches: inputs, or tuples that start with them.
    """
    with torch.random.fork_rng(devices=[]):  # dropout must not shift the randomness of the training around it
        update_bn(batches, model)


def check_schedule(every: int, stride: int, horizon: int) -> None:
    """Refuse steps at which no nowcast can take place.

    Raises:
        InvalidConfig: a number is not a positive whole one, or `every` is not a multiple of `stride`.
    """
    for name, value in (("every", every), ("stride", stride), ("horizon", horizon)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidConfig(f"{name} is {value!r}; expected a whole number of 1 or more [steps]")
    if every % stride:
        raise InvalidConfig(
            f"every is {every}, which is not a multiple of stride, {stride}: a nowcast starts from a snapshot. "
            f"Take every={max(round(every / stride), 1) * stride}"
        )


def _check_parameters(base: torch.optim.Optimizer, model: nn.Module) -> None:
    names = {id(parameter): name for name, parameter in trainable(model)}
    moved = {id(p) for group in base.param_groups for p in group["params"] if p.requires_grad}
    missing = [name for parameter, name in names.items() if parameter not in moved]
    if missing or moved - names.keys():
        raise LayoutMismatch(
            f"{type(base).__name__} moves {len(moved - names.keys())} tensors that are not trainable weights of "
            f"{type(model).__name__}, and leaves out {len(missing)} that are ({', '.join(missing[:3]) or 'none'}). "
            "Build it over this model's parameters, and freeze those that it should not move with requires_grad_(False)"
        )


def _copy_state(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _state(model)]


@torch.no_grad()
def _restore_state(model: nn.Module, saved: list[Tensor]) -> None:
    for tensor, value in zip(_state(model), saved, strict=True):
        tensor.copy_(value)


def _state(model: nn.Module) -> list[Tensor]:
    """All that a nowcast may change, in full precision: trainable weights, and buffers such as running statistics."""
    return [*(parameter for _, parameter in trainable(model)), *model.buffers()]
