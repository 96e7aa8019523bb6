"""HOPE: a language model of blocks with a memory, whose MLPs learn at their own pace."""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.clock import LevelSpec
from ..core.config import Config, option
from ..core.errors import InvalidConfig
from .continuum import VARIANTS
from .hope_block import HopeBlock, Stream
from .hope_memory import MEMORIES, memory_layer
from .levels import Levels

log = logging.getLogger(__name__)

_INIT_STD = 0.02

PRESETS: Mapping[str, Mapping[str, int]] = {
    "tiny": {"n_layer": 4, "n_head": 4, "n_embd": 128},
    "pilot-120m": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "760m": {"n_layer": 23, "n_head": 16, "n_embd": 1536},
}
"""Sizes by the name of a preset."""


class HopeConfig(Config):
    """Vocabulary size, context length, shape, memory and levels of the network, and ablations."""

    vocab_size: int = option(default=256, help="Vocabulary size [tokens].", at_least=1)
    block_size: int = option(default=64, help="Context length [tokens].", at_least=1)
    preset: str = option(default="tiny", help="Sizes that are not given.", choices=tuple(PRESETS))
    n_layer: int = option(default=0, help="Blocks [count]; 0: the preset's.", at_least=0, at_most=1_000)
    n_head: int = option(default=0, help="Heads of attention and of the memory [count]; 0: the preset's.", at_least=0)
    n_embd: int = option(default=0, help="Embedding width, a multiple of n_head; 0: the preset's.", at_least=0)
    hidden: int = option(default=0, help="Hidden width of each level's MLP; 0: n_embd.", at_least=0)
    periods: tuple[int, ...] = option(
        default=(1, 4, 16), help="Steps between updates of each level's MLP, fastest first [steps].", at_least=1
    )
    variant: str = option(default="sequential", help="How the MLPs of the levels are combined.", choices=VARIANTS)
    memory: str = option(default="self", help="Memory of each block.", choices=("none", *MEMORIES))
    carry_memory: bool = option(
        default=False, help="Continue each memory in the next training step; the task needs order=stream."
    )
    chunk: int = option(default=16, help="Tokens that the memory writes together [tokens].", at_least=1)
    window: int | None = option(
        default=None, help="Tokens to which a token attends, itself included; none: all [tokens].", at_least=1
    )
    cms: bool = option(default=True, help="One MLP per level; if false, a single one of their total hidden width.")
    self_modifying: bool = option(default=True, help="Keys, values and rates of the memory `self` adapt.")
    momentum: bool = option(default=True, help="Momentum of the memories `linear` and `titan`.")
    decay: bool = option(default=True, help="Forgetting of the memories `linear` and `titan`.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, size in PRESETS[self.preset].items():
            object.__setattr__(self, name, getattr(self, name) or size)
        object.__setattr__(self, "hidden", self.hidden or self.n_embd)
        if self.n_embd % self.n_head:
            raise InvalidConfig(f"n_embd is {self.n_embd}; expected a multiple of n_head, {self.n_head}")
        if not self.periods:
            raise InvalidConfig("periods is empty; expected the period of at least one level, such as 1,4,16")
        if list(self.periods) != sorted(self.periods):
            raise InvalidConfig(f"periods is {self.periods}; expected the fastest level first")
        if self.carry_memory and self.memory == "none":
            raise InvalidConfig("carry_memory needs a memory, but memory is none")
        if self.chunk >= self.block_size and not self.carry_memory:
            sizes = f"chunk is {self.chunk} and block_size {self.block_size}"
            if self.memory in ("linear", "titan"):
                raise InvalidConfig(
                    f"{sizes}: a memory {self.memory} would never be read after a write; expected a smaller chunk"
                )
            if self.memory == "self" and self.self_modifying:
                _warn_once(f"{sizes}: keys, values and rates of the memory never adapt; a smaller chunk lets them")

    @property
    def levels(self) -> list[LevelSpec]:
        """The levels of the continuum memory; without it, one that is due at each step."""
        periods = self.periods if self.cms else (1,)
        return [LevelSpec(f"level {number}", period) for number, period in enumerate(periods, start=1)]


class Hope(nn.Module):
    """HOPE: attention, a memory that learns while it reads, and MLPs that are updated at their own pace.

        import torch
        from metaopt.nested import Hope, HopeConfig

        model = Hope(HopeConfig(vocab_size=65, n_layer=2, n_embd=32))
        optimizer = torch.optim.Adam(model.parameters())
        model.learning_levels().attach(optimizer)  # metaopt's own commands do that
        logits = model(torch.randint(65, (8, 64)))  # [batch, block, vocabulary]

    A language model with token and position embeddings, `HopeBlock`s, and an output layer that shares the weights of
    the token embedding (Behrouz et al. 2025, arXiv:2512.24695). Each sequence has memories of its own, which begin
    anew, so a batch of any size gives the same outputs as its sequences alone. With `carry_memory`, a training on a
    stream of text continues them, see `MemoryLayer`: each step of the optimizer is followed by `write_memories`.
    """

    Config = HopeConfig

    def __init__(self, config: HopeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HopeConfig()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(_block(config) for _ in range(config.n_layer)))
        self.norm = nn.RMSNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        self._initialise()

    def forward(self, tokens: Int[Tensor, "batch block"]) -> Float[Tensor, "batch block vocabulary"]:
        """Logits of the next token at each position.

        Raises:
            InvalidConfig: more tokens than `block_size`.
        """
        return self.head(self.norm(self.blocks(self._embedded(tokens))))

    @torch.no_grad()
    def write_memories(self, tokens: Int[Tensor, "batch block"]) -> None:
        """Let each memory store tokens for the next training step, if it is carried.

        Raises:
            InvalidConfig: more tokens than `block_size`.
        """
        if self.config.carry_memory:
            stream = self._embedded(tokens)
            for block in self._blocks():
                stream = block(stream, write=True)

    def surprises(self, tokens: Int[Tensor, "batch block"]) -> dict[str, Float[Tensor, ""]]:
        """The mean surprise of each memory over all tokens, by the name of the memory.

        Raises:
            InvalidConfig: more tokens than `block_size`, or none.
        """
        if not tokens.numel():
            raise InvalidConfig(f"tokens of shape {tuple(tokens.shape)}; expected at least one sequence")
        stream, found = self._embedded(tokens), {}
        for number, block in enumerate(self._blocks()):
            surprise = block.surprise(stream)
            if surprise is not None:
                found[f"blocks.{number}.memory"] = surprise.mean()
            stream = block(stream)
        return found

    def learning_levels(self) -> Levels:
        """The levels of all blocks together: their trainable parameters and periods."""
        blocks = [block.cms.levels() for block in self._blocks()]
        parameters = {
            level: [weights for block in blocks for weights in block.parameters[level.name] if weights.requires_grad]
            for level in self.config.levels
        }
        resets = {name: [weights for block in blocks for weights in block.resets[name]] for name in blocks[0].resets}
        return Levels(parameters, resets)

    def taps(self) -> dict[str, tuple[str, int, int]]:
        """The outputs of each attention, memory and continuum memory, and of each block."""
        parts = {"attention": "attention", "memory": "memory", "cms": "mlp"}
        if self.config.memory == "none":
            del parts["memory"]
        places: dict[str, tuple[str, int, int]] = {}
        for index in range(self.config.n_layer):
            block = f"blocks.{index}"
            places |= {f"{block}.{part}": (kind, self.config.n_embd, -1) for part, kind in parts.items()}
            places[block] = ("block", self.config.n_embd, -1)
        return places

    def _embedded(self, tokens: Int[Tensor, "batch block"]) -> Stream:
        length = tokens.shape[-1]
        if not 1 <= length <= self.config.block_size:
            raise InvalidConfig(f"{length} tokens came; expected from 1 to block_size, {self.config.block_size}")
        return self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))

    def _blocks(self) -> list[HopeBlock]:
        return cast(list[HopeBlock], list(self.blocks))

    def _initialise(self) -> None:
        """Normal weights and zero biases; the n layers that write to the residual stream are scaled by 1 / √n.

        What memories return is added with zeros, so that a memory is first used as far as it helps.
        """
        writers = [layer for block in self._blocks() for layer in block.stream_layers()]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for layer in writers:
            nn.init.normal_(layer.weight, std=_INIT_STD / len(writers) ** 0.5)
        for block in self._blocks():
            for weights in block.cms.changes.parameters():
                nn.init.zeros_(weights)
            if block.memory_out is not None:
                nn.init.zeros_(block.memory_out.weight)


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _block(config: HopeConfig) -> HopeBlock:
    memory = None
    if config.memory != "none":
        memory = memory_layer(
            config.memory,
            config.n_embd,
            config.n_head,
            config.chunk,
            momentum=config.momentum,
            decay=config.decay,
            self_modifying=config.self_modifying,
        )
        if config.carry_memory:
            memory.carry()
    hidden = config.hidden if config.cms else config.hidden * len(config.periods)
    variant = cast(Literal["sequential", "nested", "headwise"], config.variant)
    return HopeBlock(config.n_embd, config.n_head, config.levels, hidden, memory, config.window, variant)
