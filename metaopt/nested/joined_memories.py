"""Memories that read the same inputs, as rows of one matrix: one product in place of one per memory."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from .self_writes import Layers, recall

Memories = dict[str, Layers]
"""Memories by their names. Those that are joined have the names of all their parts, with a plus between."""


class JoinedMemories:
    """How to join memories of several heads, and how to take them apart.

    Matrices become one; of MLPs, each stays a memory of its own. Heads and batch become one dimension.

    Args:
        widths: of the outputs of each memory, by its name.
        heads: of each memory [count].
    """

    def __init__(self, widths: Mapping[str, int], heads: int) -> None:
        self.widths, self.heads = dict(widths), heads

    def join(self, memories: Memories) -> Memories:
        """Memories with layers [batch, heads, outputs, inputs] as few with layers [heads · batch, rows, inputs]."""
        rows = {
            name: tuple(layer.transpose(0, 1).flatten(0, 1) for layer in layers) for name, layers in memories.items()
        }
        if all(len(layers) == 1 for layers in rows.values()) and rows:
            return {"+".join(rows): (torch.cat([matrix for (matrix,) in rows.values()], dim=-2),)}
        return rows

    def separate(self, joined: Memories) -> Memories:
        """The inverse of `join`."""
        memories: Memories = {}
        for names, layers in joined.items():
            heads = tuple(layer.unflatten(0, (self.heads, -1)).transpose(0, 1) for layer in layers)
            if len(heads) == 1:
                parts = heads[0].split(self.widths_of(names), dim=-2)
                memories |= {name: (part,) for name, part in zip(names.split("+"), parts, strict=True)}
            else:
                memories[names] = heads
        return memories

    def recall(self, joined: Memories, inputs: Tensor) -> dict[str, Tensor]:
        """What each memory returns, by its own name."""
        found: dict[str, Tensor] = {}
        for names, layers in joined.items():
            parts = recall(layers, inputs).split(self.widths_of(names), dim=-1)
            found |= zip(names.split("+"), parts, strict=True)
        return found

    def widths_of(self, names: str) -> list[int]:
        """Widths of the outputs of memories that are joined."""
        return [self.widths[name] for name in names.split("+")]

    def rows_of(self, names: str, like: Tensor) -> Float[Tensor, "rows memories"] | None:
        """Which rows of a joined matrix, 1 or 0, belong to which memory; None if it is one memory."""
        return torch.block_diag(*(like.new_ones(width, 1) for width in self.widths_of(names))) if "+" in names else None
