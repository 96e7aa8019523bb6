"""Language modelling: next-token prediction on a text."""

from collections.abc import Iterator, Mapping
from math import exp, log
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.config import option
from ..core.errors import TaskDataError
from .base import Batch, Examples, FractionConfig, Split, Task
from .tokenizers import Tokens, get_tokenizer

_LOGITS_AT_ONCE = 2**24  # numbers in the outputs of one forward pass; bounds memory
_LARGEST_EXPONENT = 700.0  # nats; exp() overflows above


class CorpusConfig(FractionConfig):
    """Tokenizer, block length and splits of a text, which are consecutive: train, meta, guard, validation."""

    tokenizer: str = option(
        default="bytes",
        help="Tokens: UTF-8 bytes, characters, or subwords that SentencePiece learns.",
        choices=("bytes", "characters", "sentencepiece"),
    )
    vocab_size: int = option(
        default=2000, help="Vocabulary size of SentencePiece; the other tokenizers ignore it [tokens].", at_least=1
    )
    block_size: int = option(default=128, help="Context length: tokens of one example [count].", at_least=1)
    validation_fraction: float = option(
        default=0.1, help="Fraction of the text, at its end, held out for validation.", above=0.0, below=1.0
    )
    order: str = option(
        default="shuffled",
        help="Training batches: random blocks, or streams, in which row i continues row i of the batch before.",
        choices=("shuffled", "stream"),
    )


class LanguageModel(Task):
    """Base class of next-token prediction tasks; the loss is the cross-entropy [nats per token].

    Args:
        text: the whole text.
    Raises:
        TaskDataError: a split is shorter than a block, or the text does not give a vocabulary of the required size.
    """

    kind = "language model"
    topology = "transformer"
    metric_names = ("accuracy", "perplexity")
    target_share = 0.25

    def __init__(self, text: str, config: CorpusConfig) -> None:
        parts = _split_text(text, config)
        self._tokenizer = get_tokenizer(config.tokenizer, parts, config.vocab_size)
        tokens = {split: self._tokenizer.encode(part) for split, part in parts.items()}
        _check_lengths(tokens, config.block_size)
        self.splits = {split: _blocks(part, config.block_size) for split, part in tokens.items()}
        self._block_size = config.block_size
        self.is_stream = config.order == "stream"
        self.rows_at_once = max(1, min(500, _LOGITS_AT_ONCE // (config.block_size * self._tokenizer.vocab_size)))

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Vocabulary size and context length [tokens]."""
        return {"vocab_size": self._tokenizer.vocab_size, "block_size": self._block_size}

    @property
    def baseline_loss(self) -> float:
        """The cross-entropy of equal probabilities: ln(vocabulary size)."""
        return log(self._tokenizer.vocab_size)

    def loss(
        self, outputs: Float[Tensor, "batch block vocabulary"], labels: Int[Tensor, "batch block"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy [nats per token]."""
        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten().long())

    def metrics(
        self, outputs: Float[Tensor, "batch block vocabulary"], labels: Int[Tensor, "batch block"]
    ) -> dict[str, Tensor]:
        """Next-token accuracy [0 to 1]."""
        return {"accuracy": (outputs.argmax(-1) == labels).float().mean()}

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Perplexity exp(loss) [tokens]."""
        return {"perplexity": exp(min(loss, _LARGEST_EXPONENT))}

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """The training batches of one epoch, shuffled by the random seed and the epoch alone, or as streams.

        With order=stream, the text is divided into `batch_size` streams of equal length; neighbours share a block where
        it cannot be divided. Row i is stream i in the first epoch, and in the next one stream i + 1, which continues
        it. The random seed then changes nothing.
        """
        if not self.is_stream:
            yield from super().batches(batch_size, seed, epoch)
            return
        examples = self.splits["train"]
        streams = min(batch_size, len(examples))
        first = (torch.arange(streams) + epoch) % streams * len(examples) // streams
        for step in range(-(-len(examples) // streams)):
            yield examples[first + step]

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, such as a prompt."""
        return self._tokenizer.encode(text)

    def decode(self, tokens: Tokens) -> str:
        """The text of tokens, such as those of an example or of a sample from a network."""
        return self._tokenizer.decode(tokens)


def _split_text(text: str, config: CorpusConfig) -> dict[Split, str]:
    validation = int(len(text) * config.validation_fraction)
    rest = len(text) - validation
    meta, guard = int(rest * config.meta_fraction), int(rest * config.guard_fraction)
    train = rest - meta - guard
    return {
        "train": text[:train],
        "meta": text[train : train + meta],
        "guard": text[train + meta : rest],
        "validation": text[rest:],
    }


def _check_lengths(tokens: Mapping[Split, Tokens], block_size: int) -> None:
    shortest = min(tokens, key=lambda split: len(tokens[split]))
    if (fits := len(tokens[shortest]) - 1) < block_size:
        lengths = ", ".join(f"{split} {len(part)}" for split, part in tokens.items())
        advice = f"give block_size={fits} or less, or more text" if fits > 0 else "give more text, or larger fractions"
        raise TaskDataError(
            f"the text is too short for blocks of {block_size} tokens, each with the token that follows it. Tokens per "
            f"split: {lengths}; {advice}"
        )


def _blocks(tokens: Tokens, size: int) -> Examples:
    """Blocks without overlap; the label of each token is the next token. Both are views of the same memory."""
    count = (len(tokens) - 1) // size
    inputs, labels = (tokens[start : start + count * size].view(count, size) for start in (0, 1))
    return Examples(inputs, labels, prepare=Tensor.long)
