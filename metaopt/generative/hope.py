"""HopeOptimizer: a generative optimizer with a memory of how the training at hand goes."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.config import option
from ..nested.delta_recurrence import DeltaRecurrence
from ..weights.layout import Layout
from ..weights.snapshots import Snapshots
from .base import GenerativeOptimizer, SnapshotConfig, State
from .extrapolation import doubling_ages, snapshot_indices
from .outcomes import Origins, Outcomes, feature_count, needed_corrections

_SPAN = 2**22  # weights of each snapshot that are read at a time; bounds memory
_FIRST_RATES = (0.4, 0.003)  # η and 1 − α before training


class HopeOptimizerConfig(SnapshotConfig):
    """Size of the network, of its memory and of its input."""

    history: int = option(
        default=17,
        help="Snapshots of the history, including the last [count]; directions reach half as far back.",
        at_least=3,
        at_most=257,
    )
    dim: int = option(default=64, help="Width of an embedded tensor.", at_least=1, at_most=100_000)
    keys: int = option(default=16, help="Width of a key of the memory.", at_least=1, at_most=100_000)


class HopeOptimizer(GenerativeOptimizer):
    """Slopes with coefficients per tensor that a network corrects, and a memory that learns from every outcome.

        import torch
        from metaopt import Layout, get_optimizer_model

        layout = Layout.of(torch.nn.Linear(2, 1))  # 3 weights
        history = torch.randn(1, 5, 3)  # [batch, snapshots, weights]
        t_history = torch.tensor([[0.0, 20.0, 40.0, 60.0, 80.0]])
        optimizer = get_optimizer_model("HopeOptimizer")
        predicted = optimizer.predict(history, t_history, torch.tensor([120.0]), layout)

    With the horizon h, and for each tensor its changes D_k = W_t − W_{t−a_k} over the last 1, 2, 4, 8 … snapshots:

        W_{t+h} = W_t + Σ_k h / (h + a_k) · (s_k + c_k + (M κ)_k) D_k

    s_k gives the forecast of `Slopes`. A network computes from what is known of the tensor (cosines and relative speeds
    of its changes, times, its place in the target) the correction c and a key κ of norm 1. M is a memory for each
    tensor, which is written while the optimizer is used: as soon as weights W_j are known, so is the correction v* that
    a forecast of them from an earlier W_i would have needed. With the key κ of that forecast, and with the rates η and
    α, which the network computes as well:

        M ← M (α I − η κ κᵀ) + η (v* − c) κᵀ

    So the network learns in meta-training how trainings go, and the memory how this one differs. `observe` returns what
    is stored, for the next forecasts. Without it a memory begins empty and stores what the history contains. Before
    meta-training c is zero, so that the memory alone corrects `Slopes`.

    Time is linear in the number of weights, with a small factor: coefficients follow from inner products, for which
    large tensors are sampled.

    References: Behrouz et al. 2025, arXiv:2512.24695 (optimizers as memories that are written at their own pace);
    Behrouz et al. 2024, arXiv:2501.00663 (memories that learn while they are used); Yang et al. 2024, arXiv:2412.06464
    (the write, for all tokens at once).

    Departs: in the papers a memory stores tokens of a text or gradients; here it stores forecasts and their outcomes.
    It has no momentum.
    """

    Config = HopeOptimizerConfig

    def __init__(self, config: HopeOptimizerConfig | None = None) -> None:
        super().__init__()
        self.config: HopeOptimizerConfig = (config := config or HopeOptimizerConfig())
        self._ages = doubling_ages((config.history + 1) // 2)[:-1]
        directions, dim = len(self._ages), config.dim
        self.embed = nn.Sequential(nn.Linear(feature_count(directions), dim), nn.GELU(), nn.Linear(dim, dim))
        self.mix = nn.Sequential(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim), nn.GELU())
        self.keys = nn.Linear(dim, config.keys)
        self.rates = nn.Linear(dim, 2)
        self.coefficients = nn.Linear(dim, directions)
        nn.init.zeros_(self.rates.weight)
        nn.init.zeros_(self.coefficients.weight)
        nn.init.zeros_(self.coefficients.bias)
        with torch.no_grad():
            self.rates.bias.copy_(torch.tensor(_FIRST_RATES).logit())

    def initial_state(self, layout: Layout) -> State:
        """An empty memory for each tensor."""
        return (self._empty(len(layout.tensors)),)

    def observe(
        self, state: State, snapshots: Snapshots, t_history: Float[Tensor, " snapshots"], layout: Layout
    ) -> State:
        """The memories after the outcomes of the forecasts that the last snapshot allows to judge."""
        outcomes = self._outcomes(snapshots.as_batch(), t_history.unsqueeze(0), layout)
        last = min(len(snapshots), self.history) - 1
        return self._write(state, outcomes, [last], layout)

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
        state: State | None = None,
    ) -> Float[Tensor, "batch weights"]:
        """The formula of the class."""
        snapshots = Snapshots.of(history)
        coefficients = self._coefficients(snapshots, t_history, t_end.unsqueeze(1), layout, state)[:, 0]
        return self._forecast(snapshots, coefficients, layout)

    def extrapolate_horizons(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, "horizons batch"],
        layout: Layout,
    ) -> Float[Tensor, "horizons batch weights"]:
        """The formula of the class. The memories are written once for all times."""
        snapshots = Snapshots.of(history)
        coefficients = self._coefficients(snapshots, t_history, t_end.T, layout, None)
        forecasts = history.new_empty(*t_end.shape, layout.size)
        for forecast, each in zip(forecasts, coefficients.unbind(1), strict=True):
            forecast.copy_(self._forecast(snapshots, each, layout))
        return forecasts

    def extrapolate_snapshots(
        self,
        snapshots: Snapshots,
        t_history: Float[Tensor, " snapshots"],
        t_end: Float[Tensor, " horizons"],
        layout: Layout,
        state: State | None = None,
    ) -> Float[Tensor, "horizons weights"]:
        """The formula of the class. What does not depend on the horizon is computed once for all of them."""
        times, ends = t_history.unsqueeze(0), t_end.unsqueeze(0)
        coefficients = self._coefficients(snapshots.as_batch(), times, ends, layout, state)[0]
        forecasts = coefficients.new_empty(len(t_end), layout.size)
        for tensor, (begin, end) in _spans(layout):
            forecasts[:, begin:end] = self._moved(snapshots, begin, end, coefficients[:, tensor])
        return forecasts

    def _outcomes(self, snapshots: Snapshots, t_history: Tensor, layout: Layout) -> Outcomes:
        recent = Snapshots(snapshots.rows[-self.history :], snapshots.device, snapshots.dtype)
        return Outcomes(recent, t_history[:, -self.history :], layout, self._ages)

    def _coefficients(
        self, snapshots: Snapshots, t_history: Tensor, t_end: Tensor, layout: Layout, state: State | None
    ) -> Float[Tensor, "batch horizons tensors directions"]:
        """The factors of the changes of each tensor in the forecasts."""
        outcomes = self._outcomes(snapshots, t_history, layout)
        if state is None:
            empty = self._empty(len(t_history) * len(layout.tensors))
            state = self._write((empty,), outcomes, range(1, min(len(snapshots), self.history)), layout)
        origins = outcomes.present(t_end)
        encoded = self._encode(origins, layout)
        recalled = self._sequences(self._keys(encoded)) @ state[0].mT
        recalled = recalled.unflatten(0, (len(t_end), len(layout.tensors))).transpose(1, 2)
        coefficients = origins.slopes.unsqueeze(2) + self.coefficients(encoded) + recalled
        return origins.damping.unsqueeze(2) * coefficients

    def _write(self, state: State, outcomes: Outcomes, targets: Sequence[int], layout: Layout) -> State:
        """The memories after the outcomes at some snapshots."""
        if not (judged := [target for target in targets if target]):  # nothing is known before the first snapshot
            return state
        origins, along = outcomes.past(judged)
        encoded = self._encode(origins, layout)
        expected = origins.slopes.unsqueeze(2) + self.coefficients(encoded)
        values = needed_corrections(origins, along, expected)
        valid = origins.known.unsqueeze(2) & values.isfinite().all(-1)
        parts = self._keys(encoded), values, self.rates(encoded).sigmoid(), valid.unsqueeze(-1)
        keys, values, rates, valid = map(self._sequences, parts)
        lr, forgotten = rates.unbind(-1)
        recurrence = DeltaRecurrence(keys, torch.log1p(-forgotten), lr, left_out=~valid.squeeze(-1))
        (memory,), zero = state, self._empty(1)  # the decay leads to zero
        steps = recurrence.steps(recurrence.keys @ memory.mT, zero, values)
        return (recurrence.last(memory, zero, steps),)

    def _encode(self, origins: Origins, layout: Layout) -> Float[Tensor, "batch origins tensors dim"]:
        """What the network knows of each tensor, and of all of them together."""
        embedded = self.embed(origins.features(layout))
        return self.mix(torch.cat([embedded, embedded.mean(2, keepdim=True).expand_as(embedded)], -1))

    def _keys(self, encoded: Tensor) -> Float[Tensor, "batch origins tensors keys"]:
        return functional.normalize(self.keys(encoded), dim=-1)

    def _sequences(self, values: Float[Tensor, "batch origins tensors width"]) -> Float[Tensor, "rows origins width"]:
        """One sequence of origins for each tensor of each history."""
        return values.transpose(1, 2).flatten(0, 1)

    def _empty(self, memories: int) -> Float[Tensor, "memories directions keys"]:
        return self.keys.weight.new_zeros(memories, len(self._ages), self.config.keys)

    def _forecast(
        self, snapshots: Snapshots, coefficients: Float[Tensor, "batch tensors directions"], layout: Layout
    ) -> Float[Tensor, "batch weights"]:
        """The forecasts of all tensors."""
        spans = [self._moved(snapshots, *span, coefficients[:, tensor]) for tensor, span in _spans(layout)]
        return torch.cat(spans, -1)

    def _moved(
        self, snapshots: Snapshots, begin: int, end: int, coefficients: Float[Tensor, "*batch directions"]
    ) -> Float[Tensor, "*batch span"]:
        """The forecast of a span of weights of one tensor."""
        span = snapshots.read(begin, end, snapshot_indices([*self._ages, 0], len(snapshots)))
        last = span[..., -1:, :]
        return last[..., 0, :] + torch.einsum("...k,...kw->...w", coefficients, last - span[..., :-1, :])


def _spans(layout: Layout) -> Iterator[tuple[int, tuple[int, int]]]:
    """The index of each tensor with its range in the flat vector; large tensors in several parts."""
    for number, (begin, tensor) in enumerate(zip(layout.offsets, layout.tensors, strict=True)):
        end = begin + tensor.size
        yield from ((number, (start, min(start + _SPAN, end))) for start in range(begin, end, _SPAN))
