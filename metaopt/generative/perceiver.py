"""PerceiverOptimizer: the learned generative optimizer, a Perceiver IO over weight tokens."""

import torch
from jaxtyping import Float
from perceiver_pytorch import PerceiverIO
from torch import Tensor, nn

from ..core.config import option
from ..core.errors import InvalidConfig
from ..weights.layout import Layout
from ..weights.tokens import POSITION_FEATURES, TokenGrid, tensor_scales, token_grid
from .base import GenerativeOptimizer, SnapshotConfig, present_snapshots
from .extrapolation import doubling_ages, slopes_coefficients, snapshot_indices
from .slices import in_slices

_EPSILON = 1e-12
_LARGEST_FACTOR = 2.0  # sigmoid(0) = 1/2, so an untrained network multiplies the slopes by 1
_WEIGHT_SCALE = 0.1  # a coefficient of 1 changes W_t by a tenth at most: all coefficients then learn at similar rates
_WEIGHT_HORIZON = 100  # steps


class PerceiverConfig(SnapshotConfig):
    """Size of the network and of its input."""

    start: str = option(
        default="hold",
        help="Forecast before any training, to which corrections are learned: that of Hold or of Slopes.",
        choices=("hold", "slopes"),
    )
    history: int = option(default=5, help="Snapshots of the history, including the last [count].", at_least=1)
    spacing: str = option(
        default="even",
        help="Snapshots of the history to use: all, or the last and those 1, 2, 4, 8 … before it.",
        choices=("even", "doubling"),
    )
    token_size: int = option(default=32, help="Consecutive weights per token [count].", at_least=1)
    dim: int = option(default=96, help="Width of an embedded token.", at_least=8)
    depth: int = option(default=2, help="Self-attention blocks over the latents [count].", at_least=1)
    num_latents: int = option(default=32, help="Latents [count].", at_least=1)
    latent_dim: int = option(default=96, help="Width of a latent.", at_least=8)
    heads: int = option(default=4, help="Heads of the self-attention [count].", at_least=1)
    cross_heads: int = option(default=1, help="Heads of the cross-attention with the tokens [count].", at_least=1)
    hidden: int = option(
        default=128, help="Width of the MLP that maps a decoded token to its coefficients.", at_least=1
    )
    encoded_tokens: int = option(
        default=1024, help="Tokens to encode; a longer sequence is sampled evenly [count].", at_least=1
    )
    slice_tokens: int = option(default=4096, help="Tokens to decode at a time; bounds memory [count].", at_least=1)

    def __post_init__(self) -> None:
        """Check each value, then that they are consistent.

        Raises:
            InvalidConfig: a value is invalid, or `start` is slopes with a single snapshot.
        """
        super().__post_init__()
        if self.start == "slopes" and self.history < 2:
            raise InvalidConfig(f"start is slopes and history is {self.history}: a slope needs 2 snapshots or more")


class PerceiverOptimizer(GenerativeOptimizer):
    """Perceiver IO over tokens of weights: W_t plus a learned linear combination of each token's past changes.

        import torch
        from metaopt import Layout, PerceiverOptimizer

        layout = Layout.of(torch.nn.Linear(2, 1))  # 3 weights
        history = torch.randn(1, 5, 3)  # [batch, snapshots, weights]
        t_history = torch.tensor([[0.0, 20.0, 40.0, 60.0, 80.0]])
        untrained = PerceiverOptimizer()
        assert untrained.predict(history, t_history, torch.tensor([120.0]), layout).equal(history[:, -1])

    A token is 32 consecutive weights of one tensor. With the horizon h, the time a_k from an older snapshot to the last
    one, the change D_k = W_t − W_{t−a_k} of the token, and the coefficients c_k that the network returns for it:

        start = hold:    W_{t+h} = W_t + Σ_k h / (h + a_k) · c_k · D_k + 0.1 · h / (h + 100) · c_0 · W_t
        start = slopes:  W_{t+h} = W_t + Σ_k 2 · sigmoid(c_k) · s_k · D_k,   s_k: the coefficients of `Slopes`

    The last layer is initialised with zeros, so that the untrained optimizer is Hold or Slopes. A horizon of zero
    returns W_t. With `start` = slopes, no coefficient is negative or larger than twice that of `Slopes`.

    The input of a token is the Gram matrix of its changes and of W_t, its energies, the scale of its tensor, its
    position and the times a_k, t and h. Perceiver IO encodes at most `encoded_tokens` tokens into latents and decodes
    the query of each token to its coefficients. Time is linear in the number of weights; memory beyond history and
    result is constant.

    References: Jaegle et al. 2021, arXiv:2107.14795 (Perceiver IO; the implementation is perceiver-pytorch).

    Departs: the network returns coefficients of a few directions per token instead of weights, and sees inner products
    instead of weights. Both generalise to unseen runs, where raw weights overfit to the training runs. The inner
    products are those of tensors divided by their scale; the scale is a feature of its own, because the LayerNorm of
    the encoder would discard it.
    """

    Config = PerceiverConfig

    def __init__(self, config: PerceiverConfig | None = None) -> None:
        super().__init__()
        self.config: PerceiverConfig = (config := config or PerceiverConfig())
        even = config.spacing == "even"
        self._ages = [*reversed(range(config.history))] if even else doubling_ages(config.history)
        channels = len(self._ages)  # the changes, and W_t
        self.embed_facts = nn.Linear(channels * channels + channels + 2 + POSITION_FEATURES, config.dim)
        self.embed_time = nn.Linear(3 * channels, config.dim)
        self.perceiver = PerceiverIO(
            depth=config.depth,
            dim=config.dim,
            queries_dim=config.dim,
            num_latents=config.num_latents,
            latent_dim=config.latent_dim,
            cross_heads=config.cross_heads,
            cross_dim_head=max(config.dim // config.cross_heads, 1),
            latent_heads=config.heads,
            latent_dim_head=max(config.latent_dim // config.heads, 1),
        )
        self.read_answer = nn.Sequential(
            nn.LayerNorm(2 * config.dim),
            nn.Linear(2 * config.dim, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
        )
        self.coefficients = nn.Linear(config.hidden, channels if config.start == "hold" else channels - 1)
        nn.init.zeros_(self.coefficients.weight)
        nn.init.zeros_(self.coefficients.bias)

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The formula of the class."""
        inputs = _Inputs(history, t_history, t_end, self._ages, token_grid(layout, self.config.token_size))
        sample = inputs.grid.evenly_spaced(self.config.encoded_tokens)
        encoded = self._embed(inputs.gather(sample), sample, inputs)
        slices = list(inputs.grid.slices(self.config.slice_tokens))
        if len(slices) == 1 or history.requires_grad:
            return torch.cat([self._decode(encoded, inputs, *tokens) for tokens in slices], -1)
        spans = [inputs.grid.span(*tokens) for tokens in slices]
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return in_slices(
            lambda encoded, number: self._decode(encoded, inputs, *slices[number]), spans, encoded, learning
        )

    def _decode(self, encoded: Tensor, inputs: "_Inputs", first: int, last: int) -> Float[Tensor, "batch weights"]:
        """The forecast of the tokens in the range `first` to `last`."""
        snapshots = inputs.cut(first, last)
        queries = self._embed(snapshots, torch.arange(first, last), inputs)
        decoded = self.perceiver(encoded, queries=queries)
        coefficients = self.coefficients(self.read_answer(torch.cat([decoded, queries], -1)))
        changes = snapshots[:, -1:] - snapshots[:, :-1]
        if self.config.start == "slopes":
            coefficients = inputs.slopes.unsqueeze(1) * _LARGEST_FACTOR * torch.sigmoid(coefficients)
            moved = torch.einsum("btk,bktw->btw", coefficients, changes)
        else:
            coefficients = inputs.damping.unsqueeze(1) * coefficients
            moved = torch.einsum("btk,bktw->btw", coefficients[..., :-1], changes)
            moved = moved + _WEIGHT_SCALE * coefficients[..., -1:] * snapshots[:, -1]
        return inputs.grid.join(snapshots[:, -1] + moved, first, last)

    def _embed(
        self, snapshots: Float[Tensor, "batch channels tokens width"], tokens: Tensor, inputs: "_Inputs"
    ) -> Float[Tensor, "batch tokens dim"]:
        """The input of the Perceiver for each token: inner products, energies, scales, position and times."""
        tensor = inputs.grid.tensor_index(tokens)
        movement, size = inputs.movement[:, tensor], inputs.size[:, tensor]
        values = torch.cat(
            [
                (snapshots[:, -1:] - snapshots[:, :-1]) / movement[:, None, :, None],
                (snapshots[:, -1] / size[..., None]).unsqueeze(1),
            ],
            1,
        ).transpose(1, 2)
        gram = values @ values.transpose(-1, -2) / self.config.token_size
        gram = gram.sign() * torch.log1p(4 * gram.abs())
        energy = 0.25 * (values.square().mean(-1) + 1e-6).log()
        scale = 0.25 * torch.stack([movement.log(), size.log()], -1)
        position = inputs.grid.position_features(tokens).expand(len(values), -1, -1)
        facts = torch.cat([gram.flatten(-2), energy, scale, position], -1)
        return self.embed_facts(facts) + self.embed_time(inputs.time_features).unsqueeze(1)


class _Inputs:
    """A history, and the features that all slices share.

    Args:
        ages: the snapshots to use, each as the number of snapshots after it; in order of time, the last one is 0.

    Attributes:
        size, movement: scale of each tensor in W_t, and of its changes.
        damping: h / (h + a_k) for each change, then h / (h + 100) for W_t.
        slopes: coefficients of `Slopes`.
    """

    def __init__(self, history: Tensor, t_history: Tensor, t_end: Tensor, ages: list[int], grid: TokenGrid) -> None:
        indices = snapshot_indices(ages, history.shape[1])
        self.grid = grid
        self._history, self._indices = history, indices
        times = t_history[:, indices]
        size, movement = tensor_scales(grid.layout, history, indices)
        self.size, self.movement = size + _EPSILON, movement + _EPSILON
        elapsed = times[:, -1:] - times[:, :-1]
        horizon = (t_end - times[:, -1]).unsqueeze(1).clamp(min=0)
        present = present_snapshots(times)[:, :-1].to(times.dtype)
        damping = present * horizon / (horizon + elapsed).clamp(min=1)
        self.damping = torch.cat([damping, horizon / (horizon + _WEIGHT_HORIZON)], 1)
        self.slopes = slopes_coefficients(times, horizon.squeeze(1))
        self.time_features = torch.cat(
            [
                0.25 * torch.log1p(elapsed),
                present,
                0.25 * torch.log1p(times[:, -1:]),
                0.25 * torch.log1p(horizon),
                self.damping,
            ],
            1,
        )

    def cut(self, first: int, last: int) -> Float[Tensor, "batch channels tokens width"]:
        """The tokens in the range `first` to `last` of the snapshots to use."""
        return self.grid.cut(self._history, first, last)[:, self._indices]

    def gather(self, tokens: Tensor) -> Float[Tensor, "batch channels tokens width"]:
        """The tokens with the given indices of the snapshots to use."""
        return self.grid.gather(self._history, tokens)[:, self._indices]
