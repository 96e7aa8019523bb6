"""The gated delta rule over many tokens at once."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


class DeltaRecurrence:
    """W_t = O + α_t (W_{t−1} − O) + η_t (v_t − W_{t−1} k_t) k_tᵀ for the tokens of a chunk, without a loop over them.

    The decay α leads to the origin O. Written out, with γ_t = α_1 … α_t and D = W_0 − O,

        W_t = O + γ_t D + Σ_{s ≤ t} γ_t / γ_s u_s k_sᵀ
        u_t = η_t (v_t − W_{t−1} k_t) = η_t (v_t − (O + γ_{t−1} D) k_t − Σ_{s < t} γ_{t−1} / γ_s ⟨k_s, k_t⟩ u_s)

    which is a triangular system of equations for the steps u. It is exact for any keys and any 0 < α ≤ 1. Products of
    decays are computed by their logarithms, so that small ones do not become zero divided by zero.

    One object serves all matrices that have the same keys and rates. All tensors have the rows of a batch first. An
    origin may have fewer rows: each then serves equally many rows of the batch, one after the other.

    Args:
        keys: k, one per token.
        log_decays: log α, at most 0.
        rates: η.
        left_out: tokens that are not written; they do not decay either.
    References: Yang et al. 2024, arXiv:2406.06484 (the delta rule in parallel) and arXiv:2412.06464 (with decay).
    """

    def __init__(
        self,
        keys: Float[Tensor, "batch tokens inputs"],
        log_decays: Float[Tensor, "batch tokens"],
        rates: Float[Tensor, "batch tokens"],
        left_out: Bool[Tensor, "batch tokens"],
    ) -> None:
        # No half precision: the system is solved by substitution, token after token.
        wide = torch.promote_types(keys.dtype, torch.float32)
        self.left_out = left_out.unsqueeze(-1)
        self.keys = keys.to(wide).masked_fill(self.left_out, 0.0)
        log_decays, rates = (part.to(wide).masked_fill(left_out, 0.0) for part in (log_decays, rates))
        sums = functional.pad(log_decays, (1, 0)).cumsum(-1)  # log γ_0, …, log γ_T
        future = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=keys.device).triu(1)
        decays = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(future, -torch.inf).exp()  # γ_t / γ_s
        self.kept = decays[:, :-1, :1]  # γ_{t−1}
        self.ratios = decays[:, :-1, 1:]  # γ_{t−1} / γ_s for s < t, else 0
        self.all_kept = decays[:, -1:, :1]  # γ_T
        self.rest = decays[:, -1:, 1:].mT  # γ_T / γ_s
        system = rates.unsqueeze(-1) * self.ratios * (self.keys @ self.keys.mT)
        self.solution = torch.linalg.solve_triangular(system, rates.diag_embed(), upper=False, unitriangular=True)

    def steps(
        self,
        recalled: Float[Tensor, "batch tokens outputs"],
        origin: Float[Tensor, "rows outputs inputs"],
        values: Float[Tensor, "batch tokens outputs"],
    ) -> Float[Tensor, "batch tokens outputs"]:
        """The steps u_t of a matrix W_0 that is written with values v_t, from what it returns for the keys, W_0 k_t."""
        errors = values.to(self.keys) - self._decayed(recalled, origin, self.keys)
        return self.solution @ errors.masked_fill(self.left_out, 0.0)

    def read(
        self,
        weights: Float[Tensor, "batch outputs inputs"],
        origin: Float[Tensor, "rows outputs inputs"],
        steps: Float[Tensor, "batch tokens outputs"],
        queries: Float[Tensor, "batch tokens inputs"],
    ) -> Float[Tensor, "batch tokens outputs"]:
        """W_{t−1} q_t for all tokens: each reads what the tokens before it have written."""
        wide = queries.to(self.keys)
        before = self._decayed(wide @ weights.to(wide).mT, origin, wide)
        return (before + self.ratios * (wide @ self.keys.mT) @ steps).to(queries)

    def last(
        self,
        weights: Float[Tensor, "batch outputs inputs"],
        origin: Float[Tensor, "rows outputs inputs"],
        steps: Float[Tensor, "batch tokens outputs"],
    ) -> Float[Tensor, "batch outputs inputs"]:
        """W_T, after all tokens."""
        wide = weights.to(self.keys)
        shared = origin.to(wide).repeat_interleave(len(wide) // len(origin), dim=0)
        return (shared.lerp(wide, self.all_kept) + steps.mT @ (self.rest * self.keys)).to(weights)

    def _decayed(self, recalled: Tensor, origin: Tensor, inputs: Tensor) -> Float[Tensor, "batch tokens outputs"]:
        """What W_0 returns for each token, after the decays before it: O z + γ_{t−1} (W_0 z − O z)."""
        of_origin = inputs.unflatten(0, (len(origin), -1)).flatten(1, 2) @ origin.to(inputs).mT
        return of_origin.view(recalled.shape).to(self.kept).lerp(recalled.to(self.kept), self.kept)
