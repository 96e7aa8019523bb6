"""How much the updates of each level change its parameters, over a whole training and in bounded memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..core.clock import LevelSpec
from ..core.errors import CheckpointError
from ..core.text import shown

BINS = 512
"""Bins of the steps of a training; when they are full, each two become one [count]."""


class UpdateNorms:
    """The relative update norm ‖Δθ‖ / ‖θ‖ of each level, as means over bins of steps of equal width.

        import torch
        from metaopt.core.clock import LevelSpec
        from metaopt.nested import ContinuumMemory

        memory = ContinuumMemory(4, [LevelSpec("fast"), LevelSpec("slow", period=2)])
        optimizer = torch.optim.SGD(memory.parameters(), lr=0.1)
        levels = memory.levels()
        levels.attach(optimizer)
        norms = levels.observe()
        for _ in range(4):
            memory(torch.randn(3, 4)).square().mean().backward()
            optimizer.step()
        steps, means = norms.curves()["slow"]  # [2, 4], and the norm of each update

    θ are the parameters of the level after the update. The norms stay on the device of the parameters until `curves` or
    `means` reads them, so no step waits for a device. An update costs a copy of the parameters that it changes.

    Args:
        parameters: the parameters of each level.
        start: steps before the first one that is measured [steps].
    """

    def __init__(self, parameters: Mapping[LevelSpec, Sequence[nn.Parameter]], start: int = 0) -> None:
        self.levels = {level.name: level for level in parameters}
        self.step = self._start = start
        self.width = 1  # of a bin [steps]
        self._parameters = {level.name: list(group) for level, group in parameters.items()}
        self._before: dict[str, list[Tensor]] = {}
        device = next((weights.device for group in parameters.values() for weights in group), None)
        self._sums = torch.zeros(len(self.levels), BINS, device=device)
        self._recent, self._recent_from = torch.zeros(len(self.levels), device=device), start

    @torch.no_grad()
    def before(self, due: Sequence[str]) -> None:
        """Copy the parameters of the levels that are about to be updated."""
        self._before = {name: [weights.clone() for weights in self._parameters[name]] for name in due}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Measure the updates that ended with a step [steps]."""
        self.step = step
        while step > BINS * self.width:
            self._halve()
        for row, name in enumerate(self.levels):
            if old := self._before.pop(name, None):
                norm = self._relative(old, self._parameters[name])
                self._sums[row, (step - 1) // self.width] += norm
                self._recent[row] += norm

    def means(self) -> dict[str, float]:
        """The mean norm of the updates of each level since the last call; a level without updates has none."""
        counts = {name: level.count(self.step) - level.count(self._recent_from) for name, level in self.levels.items()}
        sums = self._recent.tolist()
        self._recent.zero_()
        self._recent_from = self.step
        return {name: each / counts[name] for name, each in zip(self.levels, sums, strict=True) if counts[name]}

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """For each level, the middle step of each bin with updates [steps], and the mean norm of the updates in it."""
        return {
            name: self._curve(level, sums)
            for (name, level), sums in zip(self.levels.items(), self._sums.tolist(), strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """The norms so far. `load_state_dict` continues from them; call both between the calls of `means`."""
        return {"step": self.step, "width": self.width, "sums": self._sums.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: the state is damaged, or of other levels.
        """
        step, width, sums = state["step"], state["width"], state["sums"]
        are_counts = all(isinstance(each, int) and not isinstance(each, bool) for each in (step, width))
        if not are_counts or width < 1 or not 0 <= step <= BINS * width or sums.shape != self._sums.shape:
            raise CheckpointError(
                f"update norms of shape {tuple(sums.shape)} at step {shown(step)} in bins of {shown(width)} steps; "
                f"expected those of {len(self.levels)} levels in {BINS} bins"
            )
        self.step, self.width, self._recent_from = step, width, step
        self._sums.copy_(sums)
        self._recent.zero_()

    def _halve(self) -> None:
        pairs = self._sums.unflatten(1, (-1, 2)).sum(-1)
        self._sums = torch.cat([pairs, torch.zeros_like(pairs)], dim=1)
        self.width *= 2

    def _curve(self, level: LevelSpec, sums: Sequence[float]) -> tuple[list[float], list[float]]:
        steps, means = [], []
        for number, total in enumerate(sums):
            first, last = number * self.width + 1, min((number + 1) * self.width, self.step)
            before = max(first - 1, self._start)
            count = level.count(last) - level.count(before) if last > before else 0
            if count:
                steps.append((first + last) / 2)
                means.append(total / count)
        return steps, means

    @staticmethod
    def _relative(old: list[Tensor], new: Sequence[Tensor]) -> Float[Tensor, ""]:
        change, size = (get_total_norm(each) for each in (torch._foreach_sub(list(new), old), list(new)))
        return change / size.clamp_min(torch.finfo(size.dtype).tiny)
