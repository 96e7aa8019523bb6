"""Base class of the optimizers that add something to the steps of another base optimizer."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown
from .registry import BASE_OPTIMIZERS


class AroundBase(torch.optim.Optimizer):
    """Base class of optimizers around a base optimizer by name.

    Parameter groups and state are those of the base optimizer. A subclass adds its options to the groups, and tensors
    to the state of each parameter, so learning-rate schedulers and checkpoints work as for any optimizer.

    Args:
        params: parameters or parameter groups.
        lr: learning rate of the base optimizer.
        base: name of the base optimizer.
        base_options: its further keyword arguments.
        options: options of the subclass by name, each with the lowest allowed value and the bound that it must not
            reach. If the lowest is an integer, so is the option.
    Raises:
        UnknownName: there is no such base optimizer.
        InvalidConfig: an option is out of range, or the base optimizer is itself one around another.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        base: str,
        base_options: Mapping[str, Any] | None,
        options: Mapping[str, tuple[float, float, float]],
    ) -> None:
        for name, (value, least, bound) in options.items():
            integer = isinstance(least, int)
            if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
                raise InvalidConfig(f"{name} is {shown(value)}; expected {'an integer' if integer else 'a number'}")
            if not least <= value < bound:
                raise InvalidConfig(f"{name} is {value}; expected {least} or more, and less than {bound}")
        kind = BASE_OPTIMIZERS.get(base)
        if isinstance(kind, type) and issubclass(kind, AroundBase):
            raise InvalidConfig(f"base is {base}, which is itself built around a base optimizer; name that one")
        self._base: torch.optim.Optimizer = kind(params, lr=lr, **(base_options or {}))
        values = {name: value for name, (value, _, _) in options.items()}
        super().__init__(self._base.param_groups, {**self._base.defaults, **values})
        self._share()

    def parameters(self) -> Iterator[tuple[Tensor, dict[str, Any], dict[str, Any]]]:
        """Each parameter that has had a gradient, with its state and the options of its group."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None or parameter in self.state:
                    yield parameter, self.state[parameter], group

    def base_step(self, closure: Callable[[], Any] | None, started: str) -> tuple[Any, dict[Tensor, Tensor]]:
        """A step of the base optimizer.

        Base optimizers initialise a state that is empty, so a subclass adds to it after this step.

        Args:
            closure: passed to the base optimizer.
            started: a name in the states to which the subclass has added.
        Returns: what the base optimizer returns, and the weights before the step of parameters without this name.
        """
        every = (parameter for group in self.param_groups for parameter in group["params"])
        new = {p: p.detach().clone() for p in every if started not in self.state.get(p, ())}
        return self._base.step(closure), new

    @torch.no_grad()
    def show(self, name: str) -> None:
        """Put what the states have under a name into the network, such as the weights to evaluate."""
        for parameter, state, _ in self.parameters():
            if name in state:
                parameter.copy_(state[name])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_base" in self.__dict__:
            self._share()
            self._base.__setstate__({})  # defaults of options that older states lack

    def _share(self) -> None:
        self._base.param_groups, self._base.state = self.param_groups, self.state
