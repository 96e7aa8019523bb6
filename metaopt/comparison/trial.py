"""`Trial`: what a training function receives, by which the same function trains with and without nowcasts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.control import control
from ..core.errors import InvalidConfig
from ..core.text import shown
from ..generative.base import GenerativeOptimizer
from ..nowcast.model_state import ModelState
from ..nowcast.optimizer import Nowcast
from ..weights.files import digest_of
from .average import AveragesOfTraining
from .results import Arm, Event, Point

_DIGEST_STEPS = (0, 1, 2, 4, 8, 16, 32)
_DIGITS = 16  # of a digest


class Trial:
    """One training of a comparison. `metaopt.compare` makes it, and the training function uses it.

    In a training with nowcasts, `optimizer` returns a `Nowcast` around the optimizer that it is given; in the twin
    without nowcasts it returns that optimizer itself:

        import torch
        import metaopt

        def train(trial):
            model = torch.nn.Linear(4, 1)
            inputs, targets = torch.randn(256, 4), torch.randn(256, 1)
            loss = lambda: torch.nn.functional.mse_loss(model(inputs), targets)
            optimizer = trial.optimizer(torch.optim.Adam(model.parameters(), lr=0.01), model)
            for step in range(100):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
            return lambda: loss().item()

        print(train(metaopt.Trial())())  # with nowcasts, outside of a comparison

    Args:
        seed: random seed of the training. All global generators are seeded with it before the function is called.
        arm: `nowcast`, or `plain` for the twin without nowcasts.
        forecaster: replaces the forecaster of the function.
        arguments: replace the arguments of `Nowcast` that the function gives.
        ema: decays of running averages that the twin without nowcasts keeps.
    Raises:
        InvalidConfig: there is no such arm.
    """

    def __init__(
        self,
        seed: int = 0,
        arm: str = Arm.NOWCAST,
        *,
        forecaster: GenerativeOptimizer | str | Path | None = None,
        arguments: Mapping[str, Any] | None = None,
        ema: Sequence[float] = (),
    ) -> None:
        if arm not in list(Arm):
            raise InvalidConfig(f"arm is {shown(arm)}; expected one of {', '.join(Arm)}")
        self.seed = seed
        self.arm = Arm(arm)
        self.record = TrialRecord()
        self._forecaster, self._arguments, self._ema = forecaster, dict(arguments or {}), tuple(ema)

    def __repr__(self) -> str:
        return f"Trial(seed={self.seed}, arm={str(self.arm)!r})"

    def optimizer(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module,
        forecaster: GenerativeOptimizer | str | Path | None = None,
        **arguments: Any,
    ) -> torch.optim.Optimizer:
        """The optimizer to train with: a `Nowcast` around the base optimizer, or that itself.

        The time of the training begins with this call, so load data and build the network before it.

        Args:
            base: optimizer over exactly the trainable weights of the network.
            model: network to train.
            forecaster: as for `Nowcast`; `builtin` by default.
            arguments: further arguments of `Nowcast`, such as `guard`.
        Raises:
            InvalidConfig: it was called before in this training, or `Nowcast` refuses an argument.
            LayoutMismatch: the base optimizer does not move exactly the trainable weights of the network.
        """
        record = self.record
        if record.optimizer is not None:
            raise InvalidConfig(
                "trial.optimizer was called twice in one training; expected one call. Build one optimizer over all "
                "weights of one network, with parameter groups where they differ"
            )
        record.start()
        state = ModelState(model)
        state.check_moved_by(base)
        used: torch.optim.Optimizer = base
        if self.arm is Arm.NOWCAST:
            chosen = self._forecaster or forecaster or "builtin"
            arguments = {**arguments, **self._arguments}
            try:
                used = Nowcast(base, model, chosen, **arguments)
            except TypeError as error:
                raise InvalidConfig(f"Nowcast refuses the arguments of trial.optimizer: {error}") from error
            record.guarded = arguments.get("guard") is not None
        record.watch(base, used, state, self._ema if self.arm is Arm.PLAIN else ())
        return used

    def report(self, step: int, loss: float | Tensor) -> None:
        """Report a loss during the training, for the chart of losses; not needed for the verdict.

        Report losses of the same kind in every training, for example on validation data, at the same steps.

        Args:
            step: optimizer steps so far.
            loss: a number, or a tensor with one element.
        Raises:
            InvalidConfig: the step or the loss is no number.
        """
        with self.record.paused():
            try:
                value = loss.item() if isinstance(loss, Tensor) else float(loss)
                point = Point(int(step), value, self.record.seconds)
            except (TypeError, ValueError, RuntimeError) as error:
                raise InvalidConfig(
                    f"trial.report got step {shown(step)} and loss {shown(loss)}; expected two numbers"
                ) from error
            self.record.curve.append(point)


class TrialRecord:
    """What a trial measures while its function trains.

    Attributes:
        optimizer: the optimizer that the function was given; None before.
        guarded: whether it is a `Nowcast` with a guard.
        model: the network, without wrappers.
        steps: steps of the base optimizer [count].
        used_steps: steps of `optimizer`, which a function could bypass [count].
        curve: the reported losses.
        digests: of the weights after the first steps, by step.
        averages: the running averages of the weights, in a plain training.
    """

    def __init__(self) -> None:
        self.optimizer: torch.optim.Optimizer | None = None
        self.guarded = False
        self.steps = 0
        self.used_steps = 0
        self.curve: list[Point] = []
        self.digests: dict[int, str] = {}
        self.averages: AveragesOfTraining | None = None
        self._began: float | None = None
        self._excluded = 0.0
        self._device = torch.device("cpu")
        self._handles: list[Any] = []

    @property
    def seconds(self) -> float:
        """Time of the training so far, without that of the measurements [seconds]."""
        if self._began is None:
            return 0.0
        return time.perf_counter() - self._began - self._excluded

    @property
    def events(self) -> tuple[Event, ...]:
        """The nowcasts so far."""
        if not isinstance(self.optimizer, Nowcast):
            return ()
        return tuple(Event(each.step, each.accepted, each.followed) for each in self.optimizer.events)

    @property
    def overhead(self) -> float | None:
        """Time that nowcasts have added so far, as a fraction of that of the steps; None without a `Nowcast`."""
        return self.optimizer.overhead if isinstance(self.optimizer, Nowcast) else None

    def start(self) -> None:
        """Begin to measure the time."""
        self._began = time.perf_counter()

    def stop(self) -> float:
        """Wait for the device, and stop watching the optimizer. Returns: the time of the training [seconds]."""
        self._wait()
        seconds = self.seconds
        for handle in self._handles:
            handle.remove()
        return seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of that of the training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._excluded += time.perf_counter() - begin

    def watch(
        self, base: torch.optim.Optimizer, used: torch.optim.Optimizer, state: ModelState, ema: Sequence[float]
    ) -> None:
        """Count the steps of an optimizer, and measure the weights after them.

        Args:
            base: updates the weights.
            used: the optimizer that the function receives, `base` or a wrapper.
            state: the weights.
            ema: decays of running averages to keep.
        """
        with self.paused():
            self.optimizer, self._device = used, state.device
            self.averages = AveragesOfTraining(state.model, state.weights, ema) if ema else None
            self._measure(state)
        self._handles = [
            base.register_step_post_hook(lambda *_: self._after_step(state)),
            used.register_step_post_hook(lambda *_: self._after_used_step()),
        ]

    def _after_step(self, state: ModelState) -> None:
        self.steps += 1
        with self.paused():
            if self.averages is not None:
                self.averages.update()
            self._measure(state)

    def _after_used_step(self) -> None:
        self.used_steps += 1
        control.steps += 1

    def _measure(self, state: ModelState) -> None:
        """Keep a digest of the weights, if the step is one of the first."""
        if self.steps in _DIGEST_STEPS:
            weights = {name: each.detach() for name, each in state.named.items()}
            self.digests[self.steps] = digest_of(weights, {})[:_DIGITS]

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
