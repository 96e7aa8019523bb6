"""The gated delta rule over many tokens at once."""

import torch
from jaxtyping import Float
from torch import Tensor


class DeltaRecurrence:
    """W_t = W_{t−1} (α_t I − η_t k_t k_tᵀ) + η_t v_t k_tᵀ for the tokens of a chunk, without a loop over them.

    Written out, W_t = γ_t W_0 + Σ_{s ≤ t} γ_t / γ_s u_s k_sᵀ with γ_t = α_1 … α_t and

        u_t = η_t (v_t − W_{t−1} k_t) = η_t (v_t − γ_{t−1} W_0 k_t − Σ_{s < t} γ_{t−1} / γ_s ⟨k_s, k_t⟩ u_s)

    which is a triangular system of equations for the steps u. It is exact for any keys and any 0 < α ≤ 1. Products of
    decays are computed by their logarithms, so that small ones do not become zero divided by zero.

    One object serves all matrices that have the same keys and rates.

    Args:
        keys: k, one per token.
        log_decays: log α, at most 0.
        rates: η.
    References: Yang et al. 2024, arXiv:2406.06484 (the delta rule in parallel) and arXiv:2412.06464 (with decay).
    """

    def __init__(
        self,
        keys: Float[Tensor, "*batch tokens inputs"],
        log_decays: Float[Tensor, "*batch tokens"],
        rates: Float[Tensor, "*batch tokens"],
    ) -> None:
        # No half precision: the system is solved by substitution, token after token.
        wide = torch.promote_types(keys.dtype, torch.float32)
        self.keys, self.rates = keys.to(wide), rates.to(wide).unsqueeze(-1)
        sums = log_decays.to(wide).cumsum(-1)
        before = sums - log_decays
        tokens = keys.shape[-2]
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=keys.device).triu()
        ratios = (before.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(future, -torch.inf)
        self.kept = before.exp().unsqueeze(-1)  # γ_{t−1}
        self.ratios = ratios.exp()  # γ_{t−1} / γ_s for s < t, else 0
        self.rest = (sums[..., -1:] - sums).exp().unsqueeze(-1)  # γ_T / γ_s
        self.all_kept = sums[..., -1, None, None].exp()  # γ_T
        self.system = self.rates * self.ratios * (self.keys @ self.keys.mT)

    def steps(
        self, weights: Float[Tensor, "*batch outputs inputs"], values: Float[Tensor, "*batch tokens outputs"]
    ) -> Float[Tensor, "*batch tokens outputs"]:
        """The steps u_t of a matrix W_0 that is written with values v_t."""
        errors = self.rates * (values - self.kept * (self.keys @ weights.to(self.keys).mT))
        return torch.linalg.solve_triangular(self.system, errors.to(self.keys), upper=False, unitriangular=True)

    def read(
        self,
        weights: Float[Tensor, "*batch outputs inputs"],
        steps: Float[Tensor, "*batch tokens outputs"],
        queries: Float[Tensor, "*batch tokens inputs"],
    ) -> Float[Tensor, "*batch tokens outputs"]:
        """W_{t−1} q_t for all tokens: each reads what the tokens before it have written."""
        wide = queries.to(self.keys)
        read = self.kept * (wide @ weights.to(wide).mT) + self.ratios * (wide @ self.keys.mT) @ steps
        return read.to(queries)

    def last(
        self, weights: Float[Tensor, "*batch outputs inputs"], steps: Float[Tensor, "*batch tokens outputs"]
    ) -> Float[Tensor, "*batch outputs inputs"]:
        """W_T, after all tokens."""
        return (self.all_kept * weights + (self.rest * steps).mT @ self.keys).to(weights)
