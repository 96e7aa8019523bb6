"""Momentum of displacements, around any base optimizer: outer Nesterov and EMA-Nesterov."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from .around_base import AroundBase


class OuterNesterov(AroundBase):
    """Nesterov momentum on the displacement of every K steps of a base optimizer.

        import torch
        from metaopt.optimizers import OuterNesterov

        model = torch.nn.Linear(3, 2)
        optimizer = OuterNesterov(model.parameters(), lr=1e-3, base="Adam", every=20)

    Every K steps, with slow weights x, weights w of the base optimizer, and an outer momentum v:

        d = w − x,   v ← μ v + d,   x ← x + ρ (d + μ v),   w ← x

    This is the outer optimizer of DiLoCo (arXiv:2311.08105) with one worker, as in SNOO (arXiv:2510.15830).

    Args:
        params: parameters or parameter groups.
        lr: learning rate of the base optimizer.
        base: name of the base optimizer.
        base_options: its further keyword arguments.
        every: K [steps].
        outer_lr: ρ.
        momentum: μ.
    Raises:
        UnknownName: there is no such base optimizer.
        InvalidConfig: an option is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        base: str = "Adam",
        base_options: Mapping[str, Any] | None = None,
        every: int = 20,
        outer_lr: float = 1.0,
        momentum: float = 0.5,
    ) -> None:
        infinity = float("inf")
        options = {"every": (every, 1, infinity), "outer_lr": (outer_lr, 0.0, infinity)}
        super().__init__(params, lr, base, base_options, {**options, "outer_momentum": (momentum, 0.0, 1.0)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of the base optimizer, and every K steps one of the outer momentum."""
        loss, new = self.base_step(closure, "slow")
        for parameter, state, group in self.parameters():
            if "slow" not in state:
                state.update(slow=new[parameter], velocity=torch.zeros_like(parameter), since=0)
            state["since"] += 1
            if state["since"] < group["every"]:
                continue
            displacement = parameter - state["slow"]
            state["velocity"].mul_(group["outer_momentum"]).add_(displacement)
            displacement.add_(state["velocity"], alpha=group["outer_momentum"])
            state["slow"].add_(displacement, alpha=group["outer_lr"])
            parameter.copy_(state["slow"])
            state["since"] = 0
        return loss


class EMANesterov(AroundBase):
    """Gradients at weights that are moved ahead by an average of past displacements, at every step.

        import torch
        from metaopt.optimizers import EMANesterov

        model = torch.nn.Linear(3, 2)
        optimizer = EMANesterov(model.parameters(), lr=1e-3, base="Adam")

    With weights x, and m, the exponential moving average of their displacements (arXiv:2605.25395):

        y = x + β m,   x' = y + u(∇f(y)),   m ← γ m + (1 − γ) (x' − x)

    where u is the change by the base optimizer. A displacement that persists for 1 / (1 − γ) steps grows up to
    1 / (1 − β) times; noise does not. During training the network has the weights y, in evaluation mode x. Departs: the
    average is corrected for its start.

    Args:
        params: parameters or parameter groups.
        lr: learning rate of the base optimizer.
        base: name of the base optimizer.
        base_options: its further keyword arguments.
        beta: β.
        decay: γ.
    Raises:
        UnknownName: there is no such base optimizer.
        InvalidConfig: an option is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        base: str = "Adam",
        base_options: Mapping[str, Any] | None = None,
        beta: float = 0.5,
        decay: float = 0.98,
    ) -> None:
        options = {"ahead": (beta, 0.0, 1.0), "displacement_decay": (decay, 0.0, 1.0)}
        super().__init__(params, lr, base, base_options, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of the base optimizer, and move the weights ahead."""
        loss, new = self.base_step(closure, "behind")
        for parameter, state, group in self.parameters():
            if "behind" not in state:
                state.update(behind=new[parameter], displacement=torch.zeros_like(parameter), displacements=0)
            state["displacements"] += 1
            decay = group["displacement_decay"]
            share = (1 - decay) / (1 - decay ** state["displacements"])
            state["displacement"].lerp_(parameter - state["behind"], share)
            state["behind"].copy_(parameter)
        self.train()
        return loss

    def eval(self) -> None:
        """Put the weights x into the network, to evaluate it."""
        self.show("behind")

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights y into the network, to train it."""
        for parameter, state, group in self.parameters():
            if "behind" in state:
                parameter.copy_(state["behind"]).add_(state["displacement"], alpha=group["ahead"])
