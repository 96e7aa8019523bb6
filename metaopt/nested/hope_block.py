"""A block of HOPE: attention, a memory, and a continuum memory in place of the MLP."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.clock import LevelSpec
from ..core.errors import LayoutMismatch
from .carried_memory import MemoryLayer
from .continuum import ContinuumMemory
from .sizes import check_sizes

Stream = Float[Tensor, "batch tokens width"]
"""The residual stream."""

_CONVOLVED = 4  # tokens


class HopeBlock(nn.Module):
    """Attention, a memory read, and a continuum memory system (CMS) with a gate, each added to its input.

        import torch
        from metaopt.core.clock import LevelSpec
        from metaopt.nested import HopeBlock, memory_layer

        memory = memory_layer("self", width=16, heads=2, chunk=8)
        block = HopeBlock(16, heads=2, specs=[LevelSpec("fast"), LevelSpec("slow", 4)], memory=memory)
        outputs = block(torch.randn(3, 20, 16))  # [batch, tokens, width]

    With RMS norms and causal convolutions (conv) of 4 tokens, one kernel for each channel:

        x ← x + attention(conv(norm(x)))
        x ← x + W memory(conv(norm(x)))
        x ← x + 2 sigmoid(G norm(x)) ⊙ (CMS(x) − x)

    The convolutions begin as the identity, and the gates near 1. `Hope` begins with zeros in W, so that a memory is
    first used as far as it helps.

    Departs from the paper (Behrouz et al. 2025, arXiv:2512.24695, Eqs 94 to 97), in which the memory replaces
    attention: with a window of attention it is a hybrid, as in Titans (arXiv:2501.00663). The gate is ours.

    Args:
        width: of inputs and outputs.
        heads: attention heads; they divide the width.
        specs: levels of the CMS, fastest first.
        hidden: width of the hidden layer of each level; by default 4 times `width`.
        memory: a layer that maps tokens to what a memory returns for them; None for none. Only a `MemoryLayer` can
            be carried, and has a surprise.
        window: tokens to which a token attends, itself included; None for all before it [tokens].
        variant: how the levels of the CMS are combined, see `ContinuumMemory`.
    Raises:
        InvalidConfig: a size is no integer of 1 or more, `heads` do not divide the width, or as of `ContinuumMemory`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        specs: Sequence[LevelSpec],
        hidden: int | None = None,
        memory: nn.Module | None = None,
        window: int | None = None,
        variant: Literal["sequential", "nested", "headwise"] = "sequential",
    ) -> None:
        super().__init__()
        check_sizes(width=width, heads=heads, **({} if window is None else {"window": window}))
        self.attention_norm = nn.RMSNorm(width)
        self.attention_convolution = CausalConvolution(width)
        self.attention = WindowedAttention(width, heads, window)
        if memory is not None:
            self.memory_norm = nn.RMSNorm(width)
            self.memory_convolution = CausalConvolution(width)
        self.memory = memory
        self.memory_out = nn.Linear(width, width, bias=False) if memory is not None else None
        self.cms = ContinuumMemory(width, specs, () if hidden is None else (hidden,), variant)
        self.gate_norm = nn.RMSNorm(width)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, stream: Stream, write: bool = False) -> Stream:
        """The output of the block; that of a token depends on earlier tokens only.

        Args:
            write: whether the memory keeps what it has stored for the next batch, see `MemoryLayer`.
        Raises:
            LayoutMismatch: the stream has another width.
        """
        if stream.dim() != 3 or stream.shape[2] != self.cms.width:
            raise LayoutMismatch(f"a stream of shape {tuple(stream.shape)}; expected [batch, tokens, {self.cms.width}]")
        stream = self._attended(stream)
        if self.memory is not None and self.memory_out is not None:
            inputs = self._memory_inputs(stream)
            is_written = write and isinstance(self.memory, MemoryLayer)
            stream = stream + self.memory_out(self.memory(inputs, write=True) if is_written else self.memory(inputs))
        change = self.cms(stream) - stream
        return stream + 2 * self.gate(self.gate_norm(stream)).sigmoid() * change

    def surprise(self, stream: Stream) -> Float[Tensor, "batch tokens"] | None:
        """How much each token of an input surprises the memory; None without a `MemoryLayer`."""
        if not isinstance(self.memory, MemoryLayer):
            return None
        return self.memory.surprise(self._memory_inputs(self._attended(stream)))

    def _attended(self, stream: Stream) -> Stream:
        return stream + self.attention(self.attention_convolution(self.attention_norm(stream)))

    def _memory_inputs(self, stream: Stream) -> Stream:
        return self.memory_convolution(self.memory_norm(stream))

    def stream_layers(self) -> list[nn.Linear]:
        """The layers whose outputs are added to the residual stream."""
        return [self.attention.out, *([self.memory_out] if self.memory_out else []), *self.cms.last_layers()]


class CausalConvolution(nn.Module):
    """y_t = Σ_i kernel_i ⊙ x_{t−i} over this token and those before it; begins as the identity."""

    def __init__(self, width: int, tokens: int = _CONVOLVED) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.eye(tokens, 1).repeat(1, width))  # [tokens, width], this token first

    def forward(self, stream: Stream) -> Stream:
        """The convolved tokens; before the first there are zeros."""
        before, tokens = len(self.kernel) - 1, stream.shape[1]
        channels = self.kernel.flip(0).T.unsqueeze(1)
        convolved = functional.conv1d(stream.mT, channels, padding=before, groups=len(channels))
        return convolved[..., :tokens].mT


class WindowedAttention(nn.Module):
    """Causal attention to all tokens before, or to the last ones.

    Args:
        window: tokens to which a token attends, itself included; None for all [tokens].
    """

    def __init__(self, width: int, heads: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, stream: Stream) -> Stream:
        """Values of other tokens, mixed by the similarity of queries and keys."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(stream).chunk(3, dim=-1)
        )
        tokens = stream.shape[1]
        if self.window is None or self.window >= tokens:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            mask = self._mask(tokens, stream.device)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _mask(self, tokens: int, device: torch.device) -> Bool[Tensor, "tokens tokens"]:
        positions = torch.arange(tokens, device=device)
        age = positions[:, None] - positions
        return (age >= 0) & (age < (self.window or tokens))
