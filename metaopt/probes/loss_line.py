"""The probe `loss-line`."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.config import Config, option
from ..tasks import Batch, Task
from .base import Probe, ProbeResult
from .running import floats, slices

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LossLineConfig(Config):
    """Points on the line."""

    points: int = option(default=11, help="Points on the line, both ends included [count].", at_least=3, at_most=1001)


class LossLine(Probe):
    """The loss along the straight line between both networks, and the height of the barrier on it.

    The barrier is that of Frankle et al. 2020 (arXiv:1912.05671), of losses in place of errors.
    """

    Config = LossLineConfig
    how_to_read = """`barrier` is the largest excess of the loss over the straight line between the losses of both
ends, `hill` that over the larger one of both. A hill means that the ends lie in different basins: an average of
both networks is worse than each. A barrier without a hill is a loss that falls slowly at first, as from random
weights. BatchNorm layers use the statistics of the examples at each point, also at both ends, because statistics of
two networks do not fit the networks between them (arXiv:2211.08403); so the losses at the ends can differ from
those in evaluation mode. Other buffers of floating-point numbers are interpolated as the weights are, and whole
numbers are those of the network before. With adapters, the line is straight in A and B."""

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """The loss at equal distances; fractions are 0 before and 1 after the change."""
        count = self.config.points
        fractions = [place / (count - 1) for place in range(count)]
        for module in before.modules():
            if isinstance(module, _BatchNorm):
                module.train()  # it then updates the interpolated buffers only; `undisturbed` restores its mode
        losses = floats(
            torch.stack([_loss(before, _between(before, after, part), task, examples) for part in fractions])
        )
        first, last = losses[0], losses[-1]
        excess = [loss - (first + part * (last - first)) for part, loss in zip(fractions, losses, strict=True)]
        values = {
            "loss_before": first,
            "loss_after": last,
            "loss_change": last - first,
            "barrier": max(0.0, *excess[1:-1]),
            "hill": max(losses) - max(first, last),
        }
        rows = [
            {"fraction": part, "loss": loss, "excess": over}
            for part, loss, over in zip(fractions, losses, excess, strict=True)
        ]
        return ProbeResult(values, rows, figures={"loss": partial(_figure, fractions, losses)})


def _between(before: nn.Module, after: nn.Module, fraction: float) -> dict[str, Tensor]:
    """The weights and buffers of a point on the line, as new tensors."""
    first, second = ({**dict(each.named_parameters()), **dict(each.named_buffers())} for each in (before, after))
    return {
        name: torch.lerp(tensor, second[name], fraction) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in first.items()
    }


def _loss(model: nn.Module, tensors: dict[str, Tensor], task: Task, examples: Batch) -> Tensor:
    parts = [
        task.loss(functional_call(model, tensors, (batch.inputs,)), batch.labels) * len(batch.labels)
        for batch in slices(examples, task)
    ]
    return torch.stack(parts).sum() / len(examples.labels)


def _figure(fractions: list[float], losses: list[float]) -> "Figure":
    from ..figures import line_chart

    first, last = losses[0], losses[-1]
    series = [
        {"loss": loss, "between both ends": first + part * (last - first)}
        for part, loss in zip(fractions, losses, strict=True)
    ]
    return line_chart(
        "Loss on the line between both networks",
        "0 is the network before the change, 1 the network after it; a barrier is a loss above the line between both "
        "ends",
        "fraction of the change",
        "loss",
        fractions,
        series,
    )
