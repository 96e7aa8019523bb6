"""The probe `attention-logits`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import InvalidConfig
from ..core.text import shown
from ..tasks import Batch, Task
from .attention_names import NAMINGS, Attention, attentions_of
from .base import Probe, ProbeResult, Row
from .running import Hook, column, floats, present, ratio, slices, watching


class AttentionLogits(Probe):
    """How sharp attention is: the standard deviation of its logits q·k / √d over the keys, by block and side.

    For a query q the variance of its logits over keys is qᵀ C q / d, with the covariance C of the keys. Its mean over
    queries, heads and examples is tr(M C) / d, with the mean M of q qᵀ: exact, and without the matrix of all logits.
    The mean of the logits of a query is left out, because softmax does not depend on it.
    """

    how_to_read = """A ratio above 1 means that attention has become sharper, below 1 flatter. Deviations of several
units give attention that looks at few keys; growth over a training often precedes instability. *self* is attention of
tokens to those of the same sequence, *cross* to those of another, such as a text. All pairs count, also those that a
mask leaves out, and padding. Positions that are added later (rotary or relative ones) are not in q and k here."""

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """It needs modules of attention."""
        if next(attentions_of(model), None) is not None:
            return None
        return f"it has no attention with names as in {', '.join(NAMINGS)}"

    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Deviations of each module that runs; the values are means over the modules of a side."""
        first, second = (_deviations(model, task, examples) for model in (before, after))
        if not first:
            raise InvalidConfig("no attention of the network runs on these examples")
        rows: list[Row] = []
        for (name, side), was in first.items():
            std = {"std_before": was, "std_after": second[name, side]}
            rows.append({"block": name, "side": side, **std, "ratio": ratio(second[name, side], was)})
        values: dict[str, float | None] = {}
        for side in dict.fromkeys(row["side"] for row in rows):
            own = [row for row in rows if row["side"] == side]
            values |= {f"{side}_{name}": fmean(column(own, name)) for name in ("std_before", "std_after")}
            ratios = column(own, "ratio")
            if ratios:
                values |= {f"{side}_ratio": fmean(ratios), f"{side}_largest_ratio": max(ratios)}
        return ProbeResult(present(values), rows)


class _Moments(NamedTuple):
    """Of the queries of each head the mean of q qᵀ, of the keys the covariance."""

    queries: Float[Tensor, "batch heads size size"]
    keys: Float[Tensor, "batch heads size size"]
    side: str


def _deviations(model: nn.Module, task: Task, examples: Batch) -> dict[tuple[str, str], float]:
    """The standard deviation of the logits of each module and side, over all examples."""
    variances: dict[tuple[str, str], list[Tensor]] = {}
    with ExitStack() as stack:
        watched = [(each, stack.enter_context(_watched(each))) for each in attentions_of(model)]
        for batch in slices(examples, task):
            model(batch.inputs)
            for each, moments in watched:
                for queries, keys, side in moments:
                    variance = (queries * keys.mT).sum((-2, -1)) / (queries.shape[-1] if each.is_scaled else 1)
                    variances.setdefault((each.name, side), []).append(variance.mean(1))
                moments.clear()
    if not variances:
        return {}
    found = torch.stack([torch.cat(each).mean().clamp(min=0).sqrt() for each in variances.values()])
    return dict(zip(variances, floats(found), strict=True))


@contextmanager
def _watched(attention: Attention) -> Iterator[list[_Moments]]:
    """Collects the moments of each call of an attention while the block runs."""
    found: list[_Moments] = []
    sources: dict[str, Any] = {}
    parts: dict[str, Tensor] = {}

    def source(part: str) -> Hook:
        return lambda module, inputs, output: sources.update({part: inputs[0]})

    def keep(part: str) -> Hook:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            parts[part] = output
            if len(parts) == 2:
                side = "self" if sources["query"] is sources["key"] else "cross"
                found.append(_moments(attention, parts.pop("query"), parts.pop("key"), side))

        return hook

    def both(module: nn.Module, inputs: Any, output: Tensor) -> None:
        query, key, _ = output.chunk(3, dim=-1)
        found.append(_moments(attention, query, key, "self"))

    if attention.query is attention.key:
        with watching({attention.query: both}):
            yield found
        return
    with (
        watching({attention.query: source("query"), attention.key: source("key")}),
        watching({attention.query_output: keep("query"), attention.key_output: keep("key")}),
    ):
        yield found


def _moments(attention: Attention, queries: Tensor, keys: Tensor, side: str) -> _Moments:
    query = _split(attention, queries, queries.shape[-1] // attention.heads)
    key = _split(attention, keys, query.shape[-1])
    centred = key - key.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / key.shape[-2]
    shared = query.shape[1] // key.shape[1]  # queries that share a head of keys
    return _Moments(query.mT @ query / query.shape[-2], covariance.repeat_interleave(shared, dim=1), side)


def _split(attention: Attention, output: Tensor, size: int) -> Float[Tensor, "batch heads tokens size"]:
    if output.ndim != 3 or not size or output.shape[-1] % size:
        raise InvalidConfig(
            f"the queries or keys of {shown(attention.name)} have the shape {[*output.shape]}; expected [batch, "
            f"tokens, features] of {attention.heads} heads"
        )
    precise = torch.float32 if output.device.type == "mps" else torch.float64  # mps has no float64
    return output.to(precise).unflatten(-1, (-1, size)).transpose(1, 2)
