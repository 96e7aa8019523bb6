"""Levels of a network: parameters that an optimizer updates at their own pace."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..core.clock import LevelClock, LevelSpec
from ..core.errors import CheckpointError, InvalidConfig
from ..core.text import shown
from .update_norms import UpdateNorms

_KEY = "levels"

_Version = tuple[Tensor | None, int]
"""A gradient, and how many times it was changed in place [count]."""

_attached: WeakKeyDictionary[torch.optim.Optimizer, "Levels"] = WeakKeyDictionary()


def attach_levels(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer update the levels of a network when they are due.

    A network with levels has a method `learning_levels()`, which returns a `Levels`.

    Raises:
        InvalidConfig: the optimizer does not move a parameter of a level, or computes gradients several times per step.
    """
    learning_levels = getattr(model, "learning_levels", None)
    if callable(learning_levels):
        learning_levels().attach(optimizer)


def has_slow_levels(model: nn.Module) -> bool:
    """Whether a network has levels that are not updated at each step."""
    learning_levels = getattr(model, "learning_levels", None)
    specs = learning_levels().clock.levels if callable(learning_levels) else {}
    return any(level != LevelSpec(name) for name, level in specs.items())


def observe_levels(optimizer: torch.optim.Optimizer) -> UpdateNorms | None:
    """Measure the updates of the levels of an optimizer from now on; None if it has no levels."""
    levels = _attached.get(optimizer)
    return None if levels is None else levels.observe()


def check_levels_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Check the part of an optimizer's state that belongs to its levels.

    Raises:
        CheckpointError: the state is of an optimizer without levels, or with others, or the reverse.
    """
    levels = _attached.get(optimizer)
    if levels is not None:
        levels.check_state(state)
    elif _KEY in state:
        raise CheckpointError("an optimizer state with levels; expected that of an optimizer without levels")


class Levels:
    """Groups of parameters, each of which is updated when its level is due, by the gradients accumulated since.

        import torch
        from metaopt.core.clock import LevelSpec
        from metaopt.nested import Levels

        fast, slow = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        optimizer = torch.optim.Adam([*fast.parameters(), *slow.parameters()])
        levels = Levels({LevelSpec("slow", period=16): list(slow.parameters())})
        levels.attach(optimizer)  # from now on, optimizer.step() updates `slow` at every 16th step

    With the period C of a level, and gradients g of its parameters θ (Behrouz et al. 2025, arXiv:2512.24695, Eq. 71; 31
    of the conference version):

        θ ← optimizer(θ, Σ of g over the steps since the last update)   if the level is due
        θ, bit for bit as before                                        otherwise

    `attach` adds hooks to an optimizer, so that schedulers, `Nowcast` and trainers need to know nothing of levels. The
    state of a level that is not due does not change either, and gradients are after a step as they were before it. The
    accumulated gradients and the clock are in the optimizer's `state_dict`. Parameters in no level are updated at each
    step, as are those with a period of 1: the optimizer is then bit for bit the one without levels.

    A step that ends with an error is not counted, and its gradients are not accumulated: it can be tried again.

    Args:
        parameters: the parameters of each level.
        resets: by the name of a level, parameters that become zero, and whose state is dropped, when it is due.
    Raises:
        InvalidConfig: there is no level, two have the same name, a parameter is in two levels, or `resets` names an
            unknown level.
    """

    def __init__(
        self,
        parameters: Mapping[LevelSpec, Sequence[nn.Parameter]],
        resets: Mapping[str, Sequence[nn.Parameter]] | None = None,
    ) -> None:
        if not isinstance(parameters, Mapping):
            raise InvalidConfig(f"parameters is {shown(parameters)}; expected those of each level, by its LevelSpec")
        self.clock = LevelClock(parameters)
        self.parameters = {level.name: list(group) for level, group in parameters.items()}
        self.resets = {name: list(group) for name, group in (resets or {}).items()}
        if unknown := [name for name in self.resets if name not in self.parameters]:
            raise InvalidConfig(f"no level {shown(unknown[0])} among {', '.join(self.parameters)}")
        everything = [id(parameter) for group in self.parameters.values() for parameter in group]
        if len(everything) != len(set(everything)):
            raise InvalidConfig("a parameter is in two levels; expected each in one, or in none")
        self._sums: dict[nn.Parameter, Tensor] = {}  # of the steps since the last update
        self._gradients: dict[nn.Parameter, Tensor | None] = {}  # as they were before the present step
        self._selected: list[_Version] = []  # those with which the optimizer makes the present step
        self._is_counted = True  # whether the last step that began has been counted
        self._frame: FrameType | None = None  # of the step that began, until it is counted
        self._norms: UpdateNorms | None = None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the steps of an optimizer update the levels that are due only.

        Raises:
            InvalidConfig: levels are attached to it already; or it does not move a parameter of a level, or computes
                gradients several times per step.
        """
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InvalidConfig(
                "LBFGS computes gradients several times per step, but levels accumulate those of one. Choose another "
                "base optimizer, or a network without levels"
            )
        if optimizer in _attached:
            raise InvalidConfig(
                f"levels are attached to this {type(optimizer).__name__} already. Attach one `Levels` with the "
                "parameters of all levels, also of several networks"
            )
        moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, group in self.parameters.items():
            if missing := sum(id(parameter) not in moved for parameter in group):
                raise InvalidConfig(
                    f"{type(optimizer).__name__} does not move {missing} of the {len(group)} parameters of the level "
                    f"{shown(name)}. Build it over all parameters of the network"
                )
        _attached[optimizer] = self
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer.register_state_dict_post_hook(self._add_state)
        optimizer.register_load_state_dict_pre_hook(self._take_state)

    def observe(self) -> UpdateNorms:
        """Measure each update from now on. The training gives the same bits as without."""
        groups = {self.clock.levels[name]: group for name, group in self.parameters.items()}
        self._norms = UpdateNorms(groups, start=self.clock.step)
        return self._norms

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state of an optimizer has the clock of these levels, and gradients of their shapes.

        Raises:
            CheckpointError: it does not; the message has the first difference.
        """
        if _KEY not in state:
            raise CheckpointError("an optimizer state without levels; expected that of an optimizer with levels")
        levels = state[_KEY]
        try:
            LevelClock(self.clock.levels.values()).load_state_dict(levels["clock"])
            for name, group in self.parameters.items():
                for parameter, total in zip(group, levels["sums"][name], strict=True):
                    if total is not None and (total.shape != parameter.shape or not total.isfinite().all()):
                        raise CheckpointError(
                            f"accumulated gradients of the level {shown(name)} of shape {tuple(total.shape)}; expected "
                            f"finite numbers of shape {tuple(parameter.shape)}"
                        )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"a damaged state of levels ({error}); expected that of `state_dict`") from error

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Select the gradients of the step; returns the arguments of the step if a closure computes the gradients."""
        if self._frame is not None and self._frame in _frames():
            return None  # `super().step` in the step of a subclass, which may have changed the gradients
        self._frame = _frame_of_step()
        if self._gradients and _are_same(self._selected, _versions(optimizer)):
            self._restore()  # the step before ended with an error, and no gradient was computed since
        self._gradients.clear()
        due = self.clock.due(ahead=1)
        if self._norms is not None:
            self._norms.before(due)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._is_counted = False
        if closure is None:
            self._select(optimizer, due)
            return None
        return (args[0], _Selecting(closure, lambda: self._select(optimizer, due))), {}

    @torch.no_grad()
    def _select(self, optimizer: torch.optim.Optimizer, due: Sequence[str]) -> None:
        """Leave the gradients of the levels that are due, with those accumulated since their last update.

        Raises:
            InvalidConfig: the gradients of this step were selected before.
        """
        if self._gradients:
            raise InvalidConfig("the optimizer calls its closure more than once per step; expected one call")
        for name, group in self.parameters.items():
            is_each_step = self.clock.levels[name] == LevelSpec(name)
            for parameter in () if is_each_step else group:
                self._gradients[parameter] = parameter.grad
                parameter.grad = self._total(parameter) if name in due else None
        self._selected = _versions(optimizer)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Count the step, which came to its end, and accumulate its gradients."""
        if self._is_counted:  # by the hooks of `super().step` in the step of a subclass
            return
        self._is_counted, self._frame = True, None
        due = self.clock.tick()
        if self._norms is not None:
            self._norms.after(self.clock.step)
        self._restore()
        for name, group in self.parameters.items():
            for parameter in group:
                total = None if name in due else self._total(parameter)
                self._sums.pop(parameter, None)
                if total is not None:
                    self._sums[parameter] = total
        self._gradients.clear()
        for name in due:
            for parameter in self.resets.get(name, ()):
                parameter.zero_()
                self._sums.pop(parameter, None)
                optimizer.state.pop(parameter, None)

    def _restore(self) -> None:
        """Gradients as they were before the step."""
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        self._selected = []

    def _total(self, parameter: nn.Parameter) -> Tensor | None:
        """The sum of the gradients since the last update, this step's included, in a new tensor; None without any."""
        gradient, before = parameter.grad, self._sums.get(parameter)
        if gradient is None:
            return None if before is None else before.clone()
        return gradient.detach().clone() if before is None else before + gradient

    def _add_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        sums = {name: [self._sums.get(each) for each in group] for name, group in self.parameters.items()}
        state[_KEY] = {"clock": self.clock.state_dict(), "sums": sums}

    @torch.no_grad()
    def _take_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Restore the state of the levels.

        Raises:
            CheckpointError: the state is of an optimizer without levels, or with others.
        """
        self.check_state(state)
        levels = state[_KEY]
        self.clock.load_state_dict(levels["clock"])
        self._sums = {}
        for name, group in self.parameters.items():
            for parameter, total in zip(group, levels["sums"][name], strict=True):
                if total is not None:
                    self._sums[parameter] = total.detach().to(parameter.device, copy=True)


class _Selecting(NamedTuple):
    """A closure after which the gradients of a step are selected."""

    closure: Callable[[], Any]
    select: Callable[[], None]

    def __call__(self) -> Any:
        loss = self.closure()
        self.select()
        return loss


def _frames() -> Iterator[FrameType]:
    """The frames of all calls in progress, the last one first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _frame_of_step() -> FrameType | None:
    """The frame of the step in which a hook is called."""
    name = torch.optim.Optimizer.__module__
    return next((frame for frame in _frames() if frame.f_globals.get("__name__") == name), None)


def _versions(optimizer: torch.optim.Optimizer) -> list[_Version]:
    gradients = (parameter.grad for group in optimizer.param_groups for parameter in group["params"])
    return [(gradient, 0 if gradient is None else gradient._version) for gradient in gradients]


def _are_same(one: list[_Version], other: list[_Version]) -> bool:
    return len(one) == len(other) and all(a is b and m == n for (a, m), (b, n) in zip(one, other, strict=True))
