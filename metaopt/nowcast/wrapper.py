"""An optimizer that wraps a base optimizer, and replaces it for schedulers, hooks, checkpoints and trainers."""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Never, SupportsIndex, final

import torch

from ..core.errors import InvalidConfig

_HOOKS = ("step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")


class OptimizerWrapper(torch.optim.Optimizer):
    """An optimizer that adds something to the steps and the state of a base optimizer.

    `param_groups`, `state` and `defaults` are always those of the base optimizer, as are attributes that the wrapper
    does not have. Each hook is called once: hooks of the base optimizer and global hooks by the base optimizer's own
    method, hooks that are registered here by the method of the wrapper.

    Args:
        base: the optimizer that updates the weights.
    Raises:
        InvalidConfig: the base optimizer itself contains an optimizer.
    """

    # Also where the base optimizer is fused: GradScaler then unscales the gradients and skips steps by itself.
    _step_supports_amp_scaling = False

    def __init__(self, base: torch.optim.Optimizer) -> None:
        # Without `super().__init__`, which would make groups and a state of its own.
        check_is_innermost(base)
        self.base = base
        for name in _HOOKS:
            setattr(self, f"_optimizer_{name}_hooks", OrderedDict())

    def __getattr__(self, name: str) -> Any:
        if name == "base" or (name.startswith("__") and name.endswith("__")):  # an unfinished object, or a protocol
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.base, name)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        """Refuse copies: a guard and other functions would go on to use the network of the original.

        Raises:
            InvalidConfig: always; `copy.copy`, `copy.deepcopy`, `pickle` and `torch.save` end here.
        """
        raise InvalidConfig(
            f"{type(self).__name__} cannot be copied or pickled, because its functions, such as the guard, use the "
            "network that it was built for. Save state_dict(); to copy, build another one for the copied network, and "
            "load that state into it"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the base optimizer."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The state of the base optimizer."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the base optimizer."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, as the base optimizer does."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the base optimizer."""
        self.base.add_param_group(param_group)

    @final
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a step.

        Returns: the result of the base optimizer's step: the loss that the closure returned, or None without a closure.
        """
        arguments: tuple[Any, ...] = (self, closure)
        keywords: dict[str, Any] = {}
        for before in self._optimizer_step_pre_hooks.values():
            replaced = before(self, arguments, keywords)
            if replaced is not None:
                arguments, keywords = replaced
        result = self._step(*arguments[1:], **keywords)
        for after in self._optimizer_step_post_hooks.values():
            after(self, arguments, keywords)
        return result

    step.hooked = True  # type: ignore[attr-defined]  # PyTorch would call the global hooks here, too

    @final
    def state_dict(self) -> dict[str, Any]:
        """The state of the base optimizer with what the wrapper adds to it."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self._state_dict()
        for after in self._optimizer_state_dict_post_hooks.values():
            replaced = after(self, state)
            state = state if replaced is None else replaced
        return state

    @final
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned; after an error the optimizer is unchanged."""
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = before(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        self._load_state_dict(state_dict)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    @abstractmethod
    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a step, without the hooks."""

    @abstractmethod
    def _state_dict(self) -> dict[str, Any]:
        """The state, without the hooks."""

    @abstractmethod
    def _load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, without the hooks."""


def check_is_innermost(base: torch.optim.Optimizer) -> None:
    """Check that an optimizer does not contain another one, as Lookahead does.

    Raises:
        InvalidConfig: it does.
    """
    for name, value in vars(base).items():
        if isinstance(value, torch.optim.Optimizer):
            raise InvalidConfig(
                f"{type(base).__name__} contains another optimizer ({name}, {type(value).__name__}). Such an optimizer "
                "can keep weights of its own, which a nowcast would not move, as Lookahead does. Wrap the inner one: "
                f"build Nowcast over the {type(value).__name__}, and {type(base).__name__} over the Nowcast"
            )


def is_initialisation(base: torch.optim.Optimizer) -> bool:
    """Whether the next step is no training step: the learning rate and all gradients are zero, and there is no state.

    `torch.distributed.checkpoint` takes such a step before it saves or loads, so that the base optimizer creates its
    state. One without a state, such as SGD without momentum, gets it each time.
    """
    if base.state or any(bool(group.get("lr", 1)) for group in base.param_groups):
        return False
    found = [parameter.grad for group in base.param_groups for parameter in group["params"]]
    gradients = [gradient for gradient in found if gradient is not None]
    return bool(gradients) and not any(bool(gradient.any()) for gradient in gradients)
