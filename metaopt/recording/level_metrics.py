"""Metrics and a figure of networks with levels or memories: how often and how far levels move, and what surprises."""

from collections.abc import Iterable
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import nn

from ..core.devices import device_of
from ..figures import event_chart
from ..nested.update_norms import UpdateNorms
from ..tasks import Batch
from ..tasks.measure import in_evaluation_mode


def update_metrics(norms: UpdateNorms | None) -> dict[str, float]:
    """`fires/<level>`, updates so far, and `update_norm/<level>`, the mean of ‖Δθ‖ / ‖θ‖ since the last call."""
    if norms is None:
        return {}
    fires = {f"fires/{name}": float(level.count(norms.step)) for name, level in norms.levels.items()}
    return {**fires, **{f"update_norm/{name}": mean for name, mean in norms.means().items()}}


@torch.no_grad()
def surprise_metrics(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """`surprise/<memory>`, the mean norm of the gradient of a memory's loss, over the first of some batches.

    A network with memories has a method `surprises(inputs)`, which returns the mean surprise of each by name. It runs
    in evaluation mode, so that observing a training does not change it.
    """
    surprises = getattr(model, "surprises", None)
    if not callable(surprises):
        return {}
    with in_evaluation_mode(model):
        found = [surprises(batch.to(device_of(model)).inputs) for batch in islice(batches, 1)]
    return {f"surprise/{name}": float(value) for each in found for name, value in each.items()}


def level_figure(norms: UpdateNorms, title: str) -> Figure:
    """When each level was updated, and how far its parameters moved."""
    subtitle = (
        "Above: the updates of each level, or a bar if they are too many to draw. Below, in the same colours: norm of "
        "the change of its parameters / norm of its parameters"
    )
    fires = {
        f"{name}, every {level.period:,}" if level.period > 1 else f"{name}, each step": [
            step for step in range(1, norms.step + 1) if level.fires(step)
        ]
        for name, level in norms.levels.items()
    }
    curves = dict(zip(fires, norms.curves().values(), strict=True))
    return event_chart(title, subtitle, "optimizer steps", "relative update norm", fires, curves)
