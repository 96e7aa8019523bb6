"""PerceiverOptimizer: the learned generative optimizer, a Perceiver IO over weight tokens."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from perceiver_pytorch import PerceiverIO
from torch import Tensor, nn

from ..core.config import option
from ..core.errors import InvalidConfig
from ..weights.layout import Layout
from ..weights.scales import tensor_scales
from ..weights.snapshots import Snapshots
from ..weights.tokens import POSITION_FEATURES, TENSOR_FEATURES, Places, TokenGrid, token_grid
from .base import HISTORY_LIMIT, GenerativeOptimizer, SnapshotConfig, present_snapshots
from .extrapolation import doubling_ages, select, slopes_coefficients, snapshot_indices
from .slices import in_slices

_EPSILON = 1e-12
_LARGEST_FACTOR = 2.0  # sigmoid(0) = 1/2, so an untrained network multiplies the slopes by 1
_WEIGHT_SCALE = 0.1  # a coefficient of 1 changes W_t by a tenth at most: all coefficients then learn at similar rates
_WEIGHT_HORIZON = 100  # steps
_LARGEST_LOG_GAIN = 1.5  # gains are from 0.22 to 4.5
_DEVICE_SLICE = 2**28  # bytes of a slice on an accelerator


class PerceiverConfig(SnapshotConfig):
    """Size of the network and of its input."""

    start: str = option(
        default="hold",
        help="Forecast before any training, to which corrections are learned: that of Hold or of Slopes.",
        choices=("hold", "slopes"),
    )
    history: int = option(
        default=5, help="Snapshots of the history, including the last [count].", at_least=1, below=HISTORY_LIMIT
    )
    spacing: str = option(
        default="even",
        help="Snapshots of the history to use: all, or the last and those 1, 2, 4, 8 … before it.",
        choices=("even", "doubling"),
    )
    gains: bool = option(
        default=False,
        help="Whether the change of a tensor is multiplied by a gain for its place, which evolution learns.",
    )
    token_size: int = option(default=32, help="Consecutive weights per token [count].", at_least=1, below=100_000)
    dim: int = option(default=96, help="Width of an embedded token.", at_least=8)
    depth: int = option(default=2, help="Self-attention blocks over the latents [count].", at_least=1, at_most=1_000)
    num_latents: int = option(default=32, help="Latents [count].", at_least=1, at_most=100_000)
    latent_dim: int = option(default=96, help="Width of a latent.", at_least=8)
    heads: int = option(default=4, help="Heads of the self-attention [count].", at_least=1)
    cross_heads: int = option(default=1, help="Heads of the cross-attention with the tokens [count].", at_least=1)
    hidden: int = option(
        default=128, help="Width of the MLP that maps a decoded token to its coefficients.", at_least=1
    )
    encoded_tokens: int = option(
        default=1024, help="Tokens to encode; a longer sequence is sampled evenly [count].", at_least=1
    )
    slice_tokens: int = option(
        default=4096,
        help="Tokens to decode at a time on the CPU, where it bounds memory; accelerators decode more [count].",
        at_least=1,
    )

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

    With `gains`, the change W_{t+h} − W_t is multiplied by exp(g · p), where p are the features of the token's tensor
    (its relative index in the layout, its number of dimensions) and g are five numbers, at first zero. No gradient
    changes g: how a change lasts is known only at the end of a training, from which evolution learns
    (`metaopt.metatraining.evolution`).

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
    packages = ("perceiver-pytorch",)

    gains: Tensor | None

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
        self.register_buffer("gains", torch.zeros(TENSOR_FEATURES) if config.gains else None)

    @property
    def evolved(self) -> Float[Tensor, " numbers"] | None:
        """The exponents g of the gains."""
        return self.gains

    def extrapolate(
        self,
        history: Float[Tensor, "batch snapshots weights"],
        t_history: Float[Tensor, "batch snapshots"],
        t_end: Float[Tensor, " batch"],
        layout: Layout,
    ) -> Float[Tensor, "batch weights"]:
        """The formula of the class."""
        return self._forecasts(_Inputs(Snapshots.of(history), t_history, t_end, self._ages, self._grid(layout)))

    def extrapolate_snapshots(
        self,
        snapshots: Snapshots,
        t_history: Float[Tensor, " snapshots"],
        t_end: Float[Tensor, " horizons"],
        layout: Layout,
    ) -> Float[Tensor, "horizons weights"]:
        """The formula of the class. What does not depend on the horizon is computed once for all of them."""
        return self._forecasts(
            _Inputs(snapshots.as_batch(), t_history.unsqueeze(0), t_end, self._ages, self._grid(layout))
        )

    def _grid(self, layout: Layout) -> TokenGrid:
        return token_grid(layout, self.config.token_size)

    def _forecasts(self, inputs: "_Inputs") -> Float[Tensor, "batch weights"]:
        encoded, _ = self._embed(inputs.sampled(self.config.encoded_tokens), inputs)
        latents = self.perceiver(encoded)
        slices = list(inputs.grid.slices(self._slice_size(inputs)))
        if len(slices) == 1 or inputs.differentiable:
            return torch.cat([self._decode(latents, inputs, *tokens) for tokens in slices], -1)
        spans = [inputs.grid.span(*tokens) for tokens in slices]
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return in_slices(
            lambda latents, number: self._decode(latents, inputs, *slices[number]), spans, latents, learning
        )

    def _slice_size(self, inputs: "_Inputs") -> int:
        """How many tokens to decode at a time: more where each operation costs the time to start it on a device."""
        if inputs.device.type == "cpu":
            return self.config.slice_tokens
        channels, config = len(self._ages), self.config
        of_history = 2 * channels * (config.token_size + channels)  # values alive at once, measured
        of_forecast = 6 * config.dim + config.hidden
        size = 4 * (len(inputs.size) * of_history + len(inputs.horizon) * of_forecast)  # [bytes per token]
        return max(_DEVICE_SLICE // size, config.slice_tokens)

    def _decode(self, latents: Tensor, inputs: "_Inputs", first: int, last: int) -> Float[Tensor, "batch weights"]:
        """The forecast of the tokens in the range `first` to `last`."""
        tokens = inputs.cut(first, last)
        queries, directions = self._embed(tokens, inputs)
        decoded = self.perceiver.to_logits(self.perceiver.decoder_cross_attn(queries, context=latents))
        coefficients = self.coefficients(self.read_answer(torch.cat([decoded, queries], -1)))
        if self.config.start == "slopes":
            coefficients = inputs.slopes.unsqueeze(1) * torch.sigmoid(coefficients)
            directions = directions[..., :-1, :]
        else:
            coefficients = inputs.limits.unsqueeze(1) * coefficients
        moved = torch.einsum("btk,btkw->btw", coefficients, directions)
        if self.gains is not None:
            exponents = tokens.places.features[:, :TENSOR_FEATURES] @ self.gains
            moved = moved * exponents.clamp(-_LARGEST_LOG_GAIN, _LARGEST_LOG_GAIN).exp().unsqueeze(-1)
        return inputs.grid.join(tokens.weights[:, :, -1] + moved, first, last)

    def _embed(
        self, tokens: "_Tokens", inputs: "_Inputs"
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "histories tokens channels width"]]:
        """The input of the Perceiver for each token, and the token's directions: its changes, and W_t.

        The input has inner products, energies, scales, position and times.
        """
        last = tokens.weights[:, :, -1:]
        directions = torch.cat([last - tokens.weights[:, :, :-1], last], 2)
        values = directions / inputs.scales.index_select(1, tokens.places.tensor).unsqueeze(-1)
        gram = values @ values.mT / self.config.token_size
        energy = 0.25 * (gram.diagonal(dim1=-2, dim2=-1) + 1e-6).log()
        gram = torch.copysign(torch.log1p(4 * gram.abs()), gram)
        position = tokens.places.features.expand(len(values), -1, -1)
        scales = inputs.scale_features.index_select(1, tokens.places.tensor)
        facts = torch.cat([gram.flatten(-2), energy, scales, position], -1)
        return self.embed_facts(facts) + self.embed_time(inputs.time_features).unsqueeze(1), directions


class _Tokens(NamedTuple):
    """Some tokens of the snapshots to use, and their places."""

    weights: Float[Tensor, "histories tokens snapshots width"]
    places: Places


class _Inputs:
    """Histories, and the features that all slices share.

    There is one history per time of a forecast, or one for all of them.

    Args:
        ages: the snapshots to use, each as the number of snapshots after it; in order of time, the last one is 0.

    Attributes:
        scales: scale of each tensor in its changes, and in W_t.
        limits: h / (h + a_k) for each change, then 0.1 · h / (h + 100) for W_t.
        slopes: largest coefficients with `start` = slopes: twice those of `Slopes`.
    """

    def __init__(
        self, snapshots: Snapshots, t_history: Tensor, t_end: Tensor, ages: list[int], grid: TokenGrid
    ) -> None:
        self._indices = snapshot_indices(ages, len(snapshots))
        self.grid, self._snapshots, self.device = grid, snapshots, snapshots.device
        self.differentiable = any(row.requires_grad for row in snapshots.rows)
        times = select(t_history, self._indices)
        self.size, movement = (scale + _EPSILON for scale in tensor_scales(grid.layout, snapshots, self._indices))
        self.scale_features = 0.25 * torch.stack([movement, self.size], -1).log()
        changes = movement.unsqueeze(-1).expand(-1, -1, len(ages) - 1)
        self.scales = torch.cat([changes, self.size.unsqueeze(-1)], -1)
        elapsed = times[:, -1:] - times[:, :-1]
        self.horizon = horizon = (t_end - times[:, -1]).unsqueeze(1).clamp(min=0)
        present = present_snapshots(times)[:, :-1].to(times.dtype)
        damping = torch.cat(
            [present * horizon / (horizon + elapsed).clamp(min=1), horizon / (horizon + _WEIGHT_HORIZON)], 1
        )
        self.limits = torch.cat([damping[:, :-1], _WEIGHT_SCALE * damping[:, -1:]], 1)
        self.slopes = _LARGEST_FACTOR * slopes_coefficients(times, horizon.squeeze(1))
        of_history = torch.cat([0.25 * torch.log1p(elapsed), present, 0.25 * torch.log1p(times[:, -1:])], 1)
        of_history = of_history.expand(len(horizon), -1)
        self.time_features = torch.cat([of_history, 0.25 * torch.log1p(horizon), damping], 1)

    def cut(self, first: int, last: int) -> _Tokens:
        """The tokens in the range `first` to `last`."""
        span = self._snapshots.read(*self.grid.span(first, last), self._indices)
        weights = self.grid.cut_span(span, first, last).transpose(1, 2)
        return _Tokens(weights, self.grid.places_in(first, last, self.device))

    def sampled(self, limit: int) -> _Tokens:
        """All tokens, or an even sample of at most `limit`."""
        positions = self.grid.sample_positions(limit, self._snapshots.memory)
        weights = self._snapshots.gather(positions.indices, self._indices)
        mask = self.grid.sample_positions(limit, self.device).mask
        return _Tokens((weights * mask).transpose(1, 2), self.grid.sample_places(limit, self.device))
