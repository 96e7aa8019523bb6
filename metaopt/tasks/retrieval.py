"""Retrieval from the context: a sequence contains what it asks for later, and only the answers count."""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.config import option
from ..core.errors import TaskDataError
from ..core.rng import generator
from .base import Batch, SplitConfig, Task, hold_out, split_examples

UNASKED = -100
"""The label of a token that is not an answer; PyTorch's cross-entropy ignores it."""

_VALIDATION = 0.1  # of the examples
_LOGITS_AT_ONCE = 2**24  # numbers in the outputs of one forward pass; bounds memory

Logits = Float[Tensor, "batch block vocabulary"]
Answers = Int[Tensor, "batch block"]
Draw = Callable[[int, torch.Generator], Batch]


class RetrievalConfig(SplitConfig):
    """Number and length of the examples, and their division into splits."""

    split_seed: int = option(
        default=0, help="Random seed of the examples and of their division into splits.", at_least=0
    )
    examples: int = option(default=10_000, help="All examples, a tenth of them for validation [count].", at_least=40)
    block_size: int = option(default=128, help="Context length: tokens of one example [count].", at_least=1)


class Retrieval(Task):
    """Base class of tasks that ask for what is in the context; the loss is the cross-entropy of answers [nats/token].

    The examples are generated from a random seed. All of them are different, so the splits are disjoint. Each has
    equally many answer tokens; the labels of all others are `UNASKED`.

    Args:
        draw: generates a number of examples: inputs and labels [examples, block].
        vocab_size: number of different tokens.
    Raises:
        TaskDataError: there are not so many different examples.
    """

    kind = "language model"
    topology = "transformer"
    metric_names = ("accuracy", "exact_match")

    def __init__(self, draw: Draw, vocab_size: int, config: RetrievalConfig) -> None:
        examples = _different(draw, config.examples, generator(config.split_seed))
        train, validation = hold_out(examples, _VALIDATION, config.split_seed)
        self.splits = split_examples(train, validation, config, prepare=Tensor.long)
        self._vocab_size, self._block_size = vocab_size, config.block_size
        self.rows_at_once = max(1, min(500, _LOGITS_AT_ONCE // (config.block_size * vocab_size)))

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Vocabulary size and context length [tokens]."""
        return {"vocab_size": self._vocab_size, "block_size": self._block_size}

    @property
    def baseline_loss(self) -> float:
        """The cross-entropy of equal probabilities: ln(vocabulary size)."""
        return log(self._vocab_size)

    def loss(self, outputs: Logits, labels: Answers) -> Float[Tensor, ""]:
        """Mean cross-entropy of the answer tokens [nats per token]."""
        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten().long(), ignore_index=UNASKED)

    def metrics(self, outputs: Logits, labels: Answers) -> dict[str, Tensor]:
        """The fraction of answer tokens that are right, and of examples in which all of them are [0 to 1]."""
        asked, right = labels != UNASKED, outputs.argmax(-1) == labels
        accuracy = (right & asked).sum() / asked.sum()
        return {"accuracy": accuracy, "exact_match": (right | ~asked).all(-1).float().mean()}


def _different(draw: Draw, count: int, random: torch.Generator) -> Batch:
    """Examples without a repetition."""
    inputs, labels = draw(2 * count, random)
    rows = list({row.tobytes(): number for number, row in enumerate(inputs.numpy())}.values())[:count]
    if len(rows) < count:
        raise TaskDataError(
            f"only {len(rows)} of {2 * count} generated examples are different, and examples is {count}; give fewer "
            "examples, or a larger block_size or vocabulary"
        )
    return Batch(inputs[rows], labels[rows])
