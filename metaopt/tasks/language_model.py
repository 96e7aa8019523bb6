"""Saying how a text goes on."""

from collections.abc import Mapping
from math import exp, log
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.config import option
from ..core.errors import TaskDataError
from .base import Examples, ShareConfig, Split, Task
from .tokenizers import Tokens, get_tokenizer

_LOGITS_AT_ONCE = 2**24  # numbers in the outputs of one forward pass; bounds memory
_LARGEST = 700.0  # nats; what is above has no exponential


class CorpusConfig(ShareConfig):
    """What a text is cut into; its parts follow on one another: train, meta, guard, validation."""

    tokenizer: str = option(default="bytes", help="What a token is.", choices=("bytes", "characters", "sentencepiece"))
    vocab_size: int = option(
        default=2000, help="Pieces that SentencePiece learns; bytes and characters have their own number.", at_least=1
    )
    block_size: int = option(default=128, help="Tokens that the network sees at once [count].", at_least=1)
    validation_fraction: float = option(
        default=0.1, help="Share of the text, at its end, that only judges.", above=0.0, below=1.0
    )


class LanguageModel(Task):
    """A task that says which token follows each token of a text; its loss is cross-entropy [nats per token].

    Args:
        text: all of it.
    Raises:
        TaskDataError: a part of it has no block, or it does not give a vocabulary of the size that was asked for.
    """

    kind = "language model"
    topology = "transformer"
    metric_names = ("accuracy", "perplexity")
    target_share = 0.25

    def __init__(self, text: str, config: CorpusConfig) -> None:
        parts = _parts(text, config)
        self._tokenizer = get_tokenizer(config.tokenizer, parts, config.vocab_size)
        tokens = {split: self._tokenizer.encode(part) for split, part in parts.items()}
        _check_lengths(tokens, config.block_size)
        self.splits = {split: _blocks(part, config.block_size) for split, part in tokens.items()}
        self._block_size = config.block_size
        self.rows_at_once = max(1, min(500, _LOGITS_AT_ONCE // (config.block_size * self._tokenizer.vocab_size)))

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Number of different tokens, and of tokens in a row."""
        return {"vocab_size": self._tokenizer.vocab_size, "block_size": self._block_size}

    @property
    def baseline_loss(self) -> float:
        """Every token equally likely: ln(vocabulary)."""
        return log(self._tokenizer.vocab_size)

    def loss(
        self, outputs: Float[Tensor, "batch block vocabulary"], labels: Int[Tensor, "batch block"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy [nats per token]."""
        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten().long())

    def metrics(
        self, outputs: Float[Tensor, "batch block vocabulary"], labels: Int[Tensor, "batch block"]
    ) -> dict[str, Tensor]:
        """Accuracy of the next token [0 to 1]."""
        return {"accuracy": (outputs.argmax(-1) == labels).float().mean()}

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Perplexity [tokens]: among how many equally likely ones it would be as hard to choose."""
        return {"perplexity": exp(min(loss, _LARGEST))}

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, such as the beginning of a sample."""
        return self._tokenizer.encode(text)

    def decode(self, tokens: Tokens) -> str:
        """The text of tokens, such as an example or what a network has said."""
        return self._tokenizer.decode(tokens)


def _parts(text: str, config: CorpusConfig) -> dict[Split, str]:
    judged = int(len(text) * config.validation_fraction)
    rest = len(text) - judged
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
            f"the text is too short for blocks of {block_size} tokens and the one that follows: the splits have these "
            f"numbers of tokens: {lengths}; {advice}"
        )


def _blocks(tokens: Tokens, size: int) -> Examples:
    """Blocks that do not overlap; the label of a token is the one after it. Both are views of the same memory."""
    count = (len(tokens) - 1) // size
    inputs, labels = (tokens[start : start + count * size].view(count, size) for start in (0, 1))
    return Examples(inputs, labels, prepare=Tensor.long)
