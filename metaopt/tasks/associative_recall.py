"""Associative recall: pairs of a key and a value, then keys whose values are asked for."""

import torch
from torch import Tensor

from ..core.config import option
from ..core.errors import InvalidConfig
from .base import Batch
from .retrieval import UNASKED, Retrieval, RetrievalConfig

_FILLER = 0


class AssociativeRecallConfig(RetrievalConfig):
    """Number of pairs, vocabulary and order of the queries."""

    pairs: int = option(default=8, help="Pairs of a key and a value in each example; all are asked for.", at_least=1)
    vocab_size: int = option(default=64, help="Tokens: keys are of the first half, values of the second.", at_least=4)
    power: float = option(
        default=0.01, help="Exponent of the power law of the places of queries; 1: anywhere, 0: soon.", at_least=0.0
    )
    random_filler: bool = option(default=False, help="Random tokens between the queries, instead of token 0.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 4 * self.pairs:
            raise InvalidConfig(
                f"block_size is {self.block_size}, but {self.pairs} pairs and their queries take {4 * self.pairs} "
                "tokens; raise block_size, or give fewer pairs"
            )
        if self.vocab_size // 2 <= self.pairs:
            raise InvalidConfig(
                f"vocab_size is {self.vocab_size}, which has {self.vocab_size // 2 - 1} keys for {self.pairs} pairs; "
                f"expected {2 * self.pairs + 2} or more"
            )


class AssociativeRecall(Retrieval):
    """Associative recall with several queries (MQAR): pairs of a key and a value, then keys whose values are asked for.

        import metaopt

        task = metaopt.load_task("associative-recall", pairs=2, block_size=16, vocab_size=12, examples=100)
        inputs, labels = task.splits["train"][:1]
        # inputs: 4 7 1 9  0 0 1 0 0 0 4 0 0 0 0 0    two pairs, then their keys
        # labels: . . . .  . . 9 . . . 7 . . . . .    the values; elsewhere -100, which does not count

    Each key is asked for once, at even places, which follow a power law, as in Zoology (Arora et al. 2023,
    arXiv:2312.04927). Chance is a loss of ln(values) and an accuracy of 1 / values, where values is half of the
    vocabulary. Departs: fillers are token 0 by default, and the smallest vocabulary is that which has enough keys.
    """

    Config = AssociativeRecallConfig

    def __init__(self, config: AssociativeRecallConfig) -> None:
        self._config = config
        super().__init__(self._draw, config.vocab_size, config)

    def _draw(self, count: int, random: torch.Generator) -> Batch:
        pairs, half, block = self._config.pairs, self._config.vocab_size // 2, self._config.block_size
        shape = (count, block)
        keys = 1 + _choices(torch.ones(half - 1), shape[0], pairs, random)
        values = half + _choices(torch.ones(self._config.vocab_size - half), shape[0], pairs, random)
        places = torch.arange(1, block // 2 - pairs + 1) ** (self._config.power - 1)
        queries = 2 * pairs + 2 * _choices(places, shape[0], pairs, random)
        inputs = torch.full(shape, _FILLER)
        if self._config.random_filler:
            inputs = torch.randint(self._config.vocab_size, shape, generator=random)
        inputs[:, : 2 * pairs] = torch.stack([keys, values], dim=-1).flatten(1)
        inputs.scatter_(1, queries, keys)
        return Batch(inputs.int(), torch.full(shape, UNASKED).scatter_(1, queries, values).int())


def _choices(weights: Tensor, count: int, size: int, random: torch.Generator) -> Tensor:
    """Rows of different indices, drawn with probabilities in proportion to the weights: [count, size]."""
    return torch.multinomial(weights.float().expand(count, -1), size, generator=random)
