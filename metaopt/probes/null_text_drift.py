"""The probe `null-text-drift`."""

from statistics import fmean
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..tasks import Batch, Task
from .base import MOST_EXAMPLES, Probe, ProbeResult
from .protocols import PredictsVelocity
from .running import floats, slices

_METHODS = ("unpack", "velocity", "embed", "null_tokens")


class NullTextDrift(Probe):
    """How far the velocity for the empty text has moved: ‖v'(x, t, ∅) − v(x, t, ∅)‖ / ‖v(x, t, ∅)‖.

    Classifier-free guidance extrapolates from the velocity for the empty text, so a change there changes all samples.
    """

    how_to_read = """`null_drift` is the mean over examples, `text_drift` the same for the texts of the examples. A
change that should act on certain texts alone leaves `null_drift` near 0 while `text_drift` is larger. x and t are those
of the examples. The table has the examples with the largest drift for the empty text."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs the methods of a network of flow matching with texts."""
        missing = [name for name in _METHODS if not callable(getattr(model, name, None))]
        return f"it has no methods {', '.join(missing)}" if missing else None

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Drifts for the empty text and for the texts of the examples, a row for each example."""
        first, second = cast(PredictsVelocity, before), cast(PredictsVelocity, after)
        null: list[float] = []
        text: list[float] = []
        for batch in slices(examples, task):
            x, t, tokens = first.unpack(batch.inputs)
            for found, words in ((null, first.null_tokens(len(x)).to(x.device)), (text, tokens)):
                found += floats(_drift(*(each.velocity(x, t, each.embed(words)) for each in (first, second))))
        rows = [
            {"example": place, "null_drift": empty, "text_drift": own}
            for place, (empty, own) in enumerate(zip(null, text, strict=True))
        ]
        values = {
            "null_drift": fmean(null),
            "largest_null_drift": max(null),
            "text_drift": fmean(text),
            "largest_text_drift": max(text),
        }
        return ProbeResult(values, rows, summary=sorted(rows, key=lambda row: -row["null_drift"])[:MOST_EXAMPLES])


def _drift(before: Tensor, after: Tensor) -> Float[Tensor, " batch"]:
    """‖after − before‖ / ‖before‖ of each example; 0 where both are zeros."""
    first, moved = (torch.linalg.vector_norm(each.float().flatten(1), dim=1) for each in (before, after - before))
    return torch.where(moved > 0, moved / first, 0.0)
