"""The generative optimizer of this project: a PerceiverIO over weight tokens."""

import torch
from jaxtyping import Float
from perceiver_pytorch import PerceiverIO
from torch import Tensor, nn

from ..core.config import option
from ..core.errors import InvalidConfig
from ..weights.layout import Layout
from ..weights.tokens import PLACE_FEATURES, TokenGrid, tensor_scales, token_grid
from .base import GenerativeOptimizer, SnapshotConfig, present
from .extrapolation import doubling_ages, rows_of, straight_on
from .slices import in_slices

_TINY = 1e-12
_MOST = 2.0  # times as far as going straight on; half of it is what an answer of zero means
_SHRINKING = 0.1  # a coefficient of one on W_t changes it by a tenth: coefficients of all directions then learn alike


class PerceiverConfig(SnapshotConfig):
    """Size of the network and of what it looks at."""

    start: str = option(
        default="hold",
        help="What it predicts untrained, and learns to improve on: the last weights, or straight on (`Slopes`).",
        choices=("hold", "slopes"),
    )
    history: int = option(default=5, help="Past snapshots that it is shown [count], the last one included.", at_least=1)
    spacing: str = option(
        default="even",
        help="Which of them it looks at: all, or the last, the one before it, and those 2, 4, 8 … before it.",
        choices=("even", "doubling"),
    )
    token_size: int = option(default=32, help="Consecutive weights in one token [count].", at_least=1)
    dim: int = option(default=96, help="Width of an embedded token.", at_least=8)
    depth: int = option(default=2, help="Self-attention blocks over the latents [count].", at_least=1)
    num_latents: int = option(default=32, help="Latents [count].", at_least=1)
    latent_dim: int = option(default=96, help="Width of a latent.", at_least=8)
    heads: int = option(default=4, help="Heads of the self-attention [count].", at_least=1)
    cross_heads: int = option(default=1, help="Heads of the attention between tokens and latents [count].", at_least=1)
    hidden: int = option(
        default=128, help="Width of the layers that turn a token's answer into coefficients.", at_least=1
    )
    encoded_tokens: int = option(
        default=1024, help="Tokens that the latents see; more are sampled evenly [count].", at_least=1
    )
    slice_tokens: int = option(default=4096, help="Tokens decoded at a time, which bounds memory [count].", at_least=1)

    def __post_init__(self) -> None:
        """Check each value, then that they fit together.

        Raises:
            InvalidConfig: slopes of a single snapshot.
        """
        super().__post_init__()
        if self.start == "slopes" and self.history < 2:
            raise InvalidConfig(f"start is slopes and history is {self.history}: a slope needs 2 snapshots or more")


class PerceiverOptimizer(GenerativeOptimizer):
    """Generates weights as W_t plus, token by token, a learned combination of how the weights moved.

    A token stands for 32 neighbouring weights: the inner products of their differences W_t − W_{t−k} and of W_t
    with each other, their scale, their place and the times. PerceiverIO encodes a sample of all tokens into latents
    and answers each token's query; the answer becomes coefficients over the token's own differences and W_t.
    The answer starts at zero, so that an untrained optimizer generates exactly W_t; it is multiplied by
    horizon / (horizon + elapsed time), so that a horizon of zero changes nothing. Where `start` says `slopes`, it goes
    straight on untrained, and the answers are factors between 0 and 2 of how far, for each line of each token:
    never back, and W_t is not scaled.

    Cost grows linearly with the number of weights; memory beyond the history and the result does not grow.

    References: Jaegle et al. 2021, arXiv:2107.14795 (PerceiverIO, imported). Departs: the network answers with
    coefficients of a few directions per token, not with weights, and sees inner products, not weights: both carry
    over to runs that it has never seen, where raw weights let it memorise the ones it has (docs/LOG.md). The
    scale of each tensor is taken out and given back, because the encoder's LayerNorm would lose it.
    """

    Config = PerceiverConfig

    def __init__(self, config: PerceiverConfig | None = None) -> None:
        super().__init__()
        self.config: PerceiverConfig = (config := config or PerceiverConfig())
        even = config.spacing == "even"
        self._ages = [*reversed(range(config.history))] if even else doubling_ages(config.history)
        channels = len(self._ages)  # the differences to W_t, and W_t
        self.embed_facts = nn.Linear(channels * channels + channels + 2 + PLACE_FEATURES, config.dim)
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
        """W_t plus the learned combination of past differences; see the class."""
        past = _Past(history, t_history, t_end, self._ages, token_grid(layout, self.config.token_size))
        sample = past.grid.spread(self.config.encoded_tokens)
        encoded = self._embed(past.pick(sample), sample, past)
        slices = list(past.grid.slices(self.config.slice_tokens))
        if len(slices) == 1 or history.requires_grad:
            return torch.cat([self._decode(encoded, past, *tokens) for tokens in slices], -1)
        spans = [past.grid.span(*tokens) for tokens in slices]
        return in_slices(
            lambda encoded, number: self._decode(encoded, past, *slices[number]), spans, encoded, self._learning()
        )

    def _learning(self) -> list[Tensor]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _decode(self, encoded: Tensor, past: "_Past", first: int, last: int) -> Float[Tensor, "batch weights"]:
        """The weights that the tokens from `first` up to `last` stand for."""
        numbers = torch.arange(first, last)
        snapshots = past.cut(first, last)
        queries = self._embed(snapshots, numbers, past)
        answers = self.perceiver(encoded, queries=queries)
        coefficients = self.coefficients(self.read_answer(torch.cat([answers, queries], -1)))
        differences = snapshots[:, -1:] - snapshots[:, :-1]
        if self.config.start == "slopes":
            coefficients = past.straight_on.unsqueeze(1) * _MOST * torch.sigmoid(coefficients)
            moved = torch.einsum("btk,bktw->btw", coefficients, differences)
        else:
            coefficients = past.reach.unsqueeze(1) * coefficients
            moved = torch.einsum("btk,bktw->btw", coefficients[..., :-1], differences)
            moved = moved + _SHRINKING * coefficients[..., -1:] * snapshots[:, -1]
        return past.grid.join(snapshots[:, -1] + moved, first, last)

    def _embed(
        self, snapshots: Float[Tensor, "batch channels tokens width"], numbers: Tensor, past: "_Past"
    ) -> Float[Tensor, "batch tokens dim"]:
        """Tokens as the Perceiver sees them: how their movements relate, their scale, place and time."""
        owner = past.grid.owner(numbers)
        movement, size = past.movement[:, owner], past.size[:, owner]
        values = torch.cat(
            [
                (snapshots[:, -1:] - snapshots[:, :-1]) / movement[:, None, :, None],
                (snapshots[:, -1] / size[..., None]).unsqueeze(1),
            ],
            1,
        ).transpose(1, 2)
        together = values @ values.transpose(-1, -2) / self.config.token_size
        together = together.sign() * torch.log1p(4 * together.abs())
        energy = 0.25 * (values.square().mean(-1) + 1e-6).log()
        scale = 0.25 * torch.stack([movement.log(), size.log()], -1)
        place = past.grid.place(numbers).expand(len(values), -1, -1)
        facts = torch.cat([together.flatten(-2), energy, scale, place], -1)
        return self.embed_facts(facts) + self.embed_time(past.time_features).unsqueeze(1)


class _Past:
    """A history with everything that is computed from it once, however many slices are decoded.

    Args:
        ages: which snapshots are looked at, by how many came after them; the oldest first, the last one with 0.
    """

    def __init__(self, history: Tensor, t_history: Tensor, t_end: Tensor, ages: list[int], grid: TokenGrid) -> None:
        rows = rows_of(ages, history.shape[1])
        self.grid = grid
        self._history, self._rows = history, rows
        times = t_history[:, rows]
        size, movement = tensor_scales(grid.layout, history, rows)
        self.size, self.movement = size + _TINY, movement + _TINY
        elapsed = times[:, -1:] - times[:, :-1]
        horizon = (t_end - times[:, -1]).unsqueeze(1).clamp(min=0)
        there = present(times)[:, :-1].to(times.dtype)
        self.reach = torch.cat([there * horizon / (horizon + elapsed).clamp(min=1), horizon / (horizon + 100)], 1)
        self.straight_on = straight_on(times, horizon.squeeze(1))
        self.time_features = torch.cat(
            [
                0.25 * torch.log1p(elapsed),
                there,
                0.25 * torch.log1p(times[:, -1:]),
                0.25 * torch.log1p(horizon),
                self.reach,
            ],
            1,
        )

    def cut(self, first: int, last: int) -> Float[Tensor, "batch channels tokens width"]:
        """The tokens from `first` up to `last` of the snapshots that are looked at."""
        return self.grid.cut(self._history, first, last)[:, self._rows]

    def pick(self, tokens: Tensor) -> Float[Tensor, "batch channels tokens width"]:
        """Any tokens of them, by number."""
        return self.grid.pick(self._history, tokens)[:, self._rows]
