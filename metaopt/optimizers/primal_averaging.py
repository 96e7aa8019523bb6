"""Generalised primal averaging, around any base optimizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from .around_base import AroundBase


class PrimalAveraging(AroundBase):
    """Gradients between the weights of a base optimizer and their exponential moving average.

        import torch
        from metaopt.optimizers import PrimalAveraging

        model = torch.nn.Linear(3, 2)
        without_momentum = {"betas": (0.0, 0.999)}
        optimizer = PrimalAveraging(model.parameters(), lr=1e-3, base="Adam", base_options=without_momentum)

    With weights z of the base optimizer and their average x (generalised primal averaging, arXiv:2512.17131):

        y = ν x + (1 − ν) z,   z ← z + u(∇f(y)),   x ← μ x + (1 − μ) z

    where u is the change by the base optimizer. During training the network has the weights y, in evaluation mode the
    average x. With μ = 1 − 1 / t it is Schedule-Free (arXiv:2405.15682). Departs: the average is corrected for its
    start.

    The average takes the place of momentum, so a base optimizer does best without its own: then, and with the default
    decay and interpolation, the loss ended at or below that of an average of Adam's weights on two small networks, and
    with Adam's momentum often above.

    Args:
        params: parameters or parameter groups.
        lr: learning rate of the base optimizer.
        base: name of the base optimizer.
        base_options: its further keyword arguments.
        decay: μ.
        interpolation: ν.
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
        decay: float = 0.98,
        interpolation: float = 0.7,
    ) -> None:
        options = {"average_decay": (decay, 0.0, 1.0), "interpolation": (interpolation, 0.0, 1.0)}
        super().__init__(params, lr, base, base_options, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step. A closure is called once, at the weights y."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.show("moved")
        self.base_step(None, "moved")
        for parameter, state, group in self.parameters():
            if "moved" not in state:
                state.update(moved=torch.zeros_like(parameter), average=torch.zeros_like(parameter), averaged=0)
            state["averaged"] += 1
            decay = group["average_decay"]
            state["average"].lerp_(parameter, (1 - decay) / (1 - decay ** state["averaged"]))
            state["moved"].copy_(parameter)
        self.train()
        return loss

    def eval(self) -> None:
        """Put the average x into the network, to evaluate it."""
        self.show("average")

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights y into the network, to train it."""
        for parameter, state, group in self.parameters():
            if "average" in state:
                parameter.copy_(state["moved"]).lerp_(state["average"], group["interpolation"])
