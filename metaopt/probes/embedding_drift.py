"""The probe `embedding-drift`."""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InvalidConfig
from ..tasks import Batch, Task
from .base import MOST_EXAMPLES, Probe, ProbeResult, Row
from .protocols import EmbedsText, tokens_of
from .running import floats, slices

_MOST_TOKENS = 4096
"""Tokens among which neighbours are searched [count]; all pairs are compared."""

_CHUNK = 512  # tokens whose neighbours are searched at once; bounds memory
_TIE = 1e-5  # a difference of cosines below this is none

Rows = Float[Tensor, "tokens width"]


class EmbeddingDrift(Probe):
    """How far the embedding of each token has turned, and whether its nearest neighbour is another one."""

    how_to_read = """The cosine between the embedding of a token before and after is 1 for an unchanged direction. The
smallest one shows whether single tokens have moved far while the mean hardly did. The nearest neighbour of a token is
that among all tokens of these examples with the largest cosine: where it changes, texts are told apart differently,
even if all cosines are large. Padding (embeddings of zeros) is left out. The table has the examples with the smallest
cosines."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs a method `embed`, and tokens."""
        if not isinstance(model, EmbedsText):
            return "it has no method embed(tokens)"
        if tokens_of(model, task.splits["train"][:1].inputs) is None:
            return "its inputs are no tokens, and it has no method unpack(inputs) that gives some"
        return None

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Cosines of all tokens, and a row for each example."""
        first, second = (_embedded(model, examples, task) for model in (before, after))
        used = (first != 0).any(-1) | (second != 0).any(-1)
        cosines = F.cosine_similarity(first, second, dim=-1, eps=1e-12)
        per_example = _statistics(cosines, used)
        whole = floats(_statistics(cosines.flatten()[None], used.flatten()[None])[0])
        if not whole[-1]:
            raise InvalidConfig("all tokens of the examples are padding; give other examples, or more")
        most = [each.flatten(0, 1)[:_MOST_TOKENS] for each in (first, second, used[..., None])]
        changed = float(_neighbours_changed(most[0], most[1], most[2][:, 0]))
        names = ("mean_cosine", "median_cosine", "smallest_cosine")
        rows: list[Row] = [
            {"example": place, "tokens": round(count), **dict(zip(names, found, strict=True))}
            for place, (*found, count) in enumerate(map(floats, per_example.cpu()))
            if count
        ]
        values = {**dict(zip(names, whole, strict=False)), "neighbours_changed": changed}
        return ProbeResult(values, rows, summary=sorted(rows, key=lambda row: row["smallest_cosine"])[:MOST_EXAMPLES])


def _embedded(model: nn.Module, examples: Batch, task: Task) -> Float[Tensor, "examples length width"]:
    parts = []
    for batch in slices(examples, task):
        tokens = tokens_of(model, batch.inputs)
        assert tokens is not None  # or the probe does not apply
        parts.append(cast(EmbedsText, model).embed(tokens).float())
    return torch.cat(parts)


def _statistics(
    cosines: Float[Tensor, "rows length"], used: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows statistics"]:
    """Mean, median and minimum over the used tokens of each row, and their number."""
    known = torch.where(used, cosines, torch.nan)
    smallest = torch.where(used, cosines, torch.inf).amin(-1)
    return torch.stack([known.nanmean(-1), known.nanmedian(-1).values, smallest, used.sum(-1).float()], dim=-1)


def _neighbours_changed(before: Rows, after: Rows, used: Bool[Tensor, " tokens"]) -> Float[Tensor, ""]:
    """The share of used tokens whose nearest neighbour after was further away than their nearest one before.

    Equal embeddings, as of a word that occurs twice, are neighbours of equal distance: a change from one to another is
    none.
    """
    first, second = (F.normalize(each, dim=-1) for each in (before, after))
    changed = torch.zeros((), device=before.device)
    places = torch.arange(len(before), device=before.device)
    for rows in places.split(_CHUNK):
        was = _similarities(first, rows, used)
        nearest = was.gather(1, _similarities(second, rows, used).argmax(1, keepdim=True)).squeeze(1)
        changed = changed + ((nearest < was.amax(1) - _TIE) & used[rows]).sum()
    return changed / used.sum().clamp(min=1)


def _similarities(
    unit: Rows, rows: Int[Tensor, " rows"], used: Bool[Tensor, " tokens"]
) -> Float[Tensor, "rows tokens"]:
    """The cosines of some tokens with all others; −1 with themselves and with padding."""
    places = torch.arange(len(unit), device=unit.device)
    others = used & (places != rows[:, None])
    return torch.where(others, unit[rows] @ unit.T, -1.0)
