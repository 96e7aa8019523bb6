"""The continuum memory system (CMS): a chain of MLPs, each of which learns at its own pace."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.clock import LevelClock, LevelSpec
from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from ..core.values import are_counts
from .levels import Levels

VARIANTS = ("sequential", "nested", "headwise")


class ContinuumMemory(nn.Module):
    """A chain of MLPs in place of the single one of a Transformer block; level ℓ is updated every C_ℓ steps.

        import torch
        from metaopt.core.clock import LevelSpec
        from metaopt.nested import ContinuumMemory

        memory = ContinuumMemory(8, [LevelSpec("fast", 1), LevelSpec("slow", 16)])
        optimizer = torch.optim.Adam(memory.parameters())
        memory.levels().attach(optimizer)
        outputs = memory(torch.randn(2, 5, 8))  # [batch, tokens, width]

    With blocks MLP(x) = x + W₂ gelu(W₁ norm(x)) (Behrouz et al. 2025, arXiv:2512.24695, Eqs 70 to 74; 30 and 31 of the
    conference version):

        sequential:  y = MLP_k(… MLP_1(x)), the first level innermost
        nested:      the same, and the weights of level ℓ < k are an initial state, which belongs to level ℓ + 1, plus
                     a change, which belongs to level ℓ and starts from zero whenever level ℓ + 1 is due
        headwise:    y = x + Σ_ℓ softmax(a)_ℓ (MLP_ℓ(x) − x), with learned a

    Departs: in the paper the initial state of a nested level is learned through the updates of that level. Here its
    gradient is that of the weights that it is part of, which is first-order meta-learning (arXiv:1803.02999).

    Args:
        width: width of inputs and outputs.
        specs: the levels, fastest first.
        hidden: widths of the hidden layers of each MLP; by default one of four times `width`.
        variant: how the levels are combined.
    Raises:
        InvalidConfig: there is no level, a width is below 1, there is no such variant, or a nested level is due less
            often than the next.
    """

    def __init__(
        self,
        width: int,
        specs: Sequence[LevelSpec],
        hidden: Sequence[int] = (),
        variant: Literal["sequential", "nested", "headwise"] = "sequential",
    ) -> None:
        super().__init__()
        specs = tuple(LevelClock(specs).levels.values())  # checks that there are levels, of different names
        if not isinstance(hidden, Sequence) or not are_counts(width, *hidden):
            raise InvalidConfig(
                f"width is {shown(width)} and hidden is {shown(hidden)}; expected a positive integer and a list of them"
            )
        hidden = tuple(hidden) or (4 * width,)
        if variant not in VARIANTS:
            raise InvalidConfig(f"variant is {shown(variant)}; expected one of {', '.join(VARIANTS)}")
        if variant == "nested" and any(slow.period % fast.period for fast, slow in pairwise(specs)):
            periods = [spec.period for spec in specs]
            raise InvalidConfig(f"the periods of nested levels are {periods}; expected multiples, fastest first")
        self.width, self.specs, self.variant = width, specs, variant
        self.blocks = nn.ModuleList(_Block(width, hidden) for _ in specs)
        is_nested = variant == "nested"
        self.changes = nn.ModuleList(_zeros_like(block) for block in list(self.blocks)[:-1] if is_nested)
        self.shares = nn.Parameter(torch.zeros(len(specs))) if variant == "headwise" else None

    def forward(self, inputs: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The output y of the formula of the class.

        Raises:
            LayoutMismatch: the inputs have another width.
        """
        if inputs.shape[-1:] != (self.width,):
            raise LayoutMismatch(f"inputs of shape {tuple(inputs.shape)}; expected {self.width} as the last size")
        if self.shares is not None:
            parts = torch.stack([block(inputs) - inputs for block in self.blocks], -1)
            return inputs + parts @ self.shares.softmax(0)
        outputs = inputs
        for number, block in enumerate(self.blocks):
            if number < len(self.changes):
                changes = dict(self.changes[number].named_parameters())
                weights = {name: weight + changes[name] for name, weight in block.named_parameters()}
                outputs = torch.func.functional_call(block, weights, (outputs,))
            else:
                outputs = block(outputs)
        return outputs

    def last_layers(self) -> list[nn.Linear]:
        """The last layer of each MLP, for their initial weights."""
        return [[layer for layer in block.modules() if isinstance(layer, nn.Linear)][-1] for block in self.blocks]

    def levels(self) -> Levels:
        """The parameters of each level, for `levels().attach(optimizer)`."""
        blocks = [list(block.parameters()) for block in self.blocks]
        if self.variant != "nested":
            return Levels(dict(zip(self.specs, blocks, strict=True)))
        changes = [list(change.parameters()) for change in self.changes]
        groups = [
            [*(changes[number] if number < len(changes) else blocks[number]), *(blocks[number - 1] if number else [])]
            for number in range(len(blocks))
        ]
        resets = {self.specs[number + 1].name: change for number, change in enumerate(changes)}
        return Levels(dict(zip(self.specs, groups, strict=True)), resets)


class _Block(nn.Module):
    """x + W₂ gelu(W₁ norm(x)), or with more hidden layers."""

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        sizes = [width, *hidden, width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.layers[0](self.norm(inputs))
        for layer in list(self.layers)[1:]:
            outputs = layer(nn.functional.gelu(outputs))
        return inputs + outputs


def _zeros_like(block: nn.Module) -> nn.Module:
    """A block of the same shape whose parameters are all zero."""
    zeros = copy.deepcopy(block)
    for parameter in zeros.parameters():
        nn.init.zeros_(parameter)
    return zeros
