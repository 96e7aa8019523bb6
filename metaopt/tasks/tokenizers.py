"""Tokenizers: UTF-8 bytes, characters, and subwords that SentencePiece learns."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import sentencepiece
import torch
from jaxtyping import Int
from torch import Tensor

from ..core.errors import TaskDataError
from ..core.text import shown
from .base import Split
from .cache import CacheEntry, cache_key, cached

Tokens = Int[Tensor, " tokens"]

_SENTENCE = 1000  # characters; SentencePiece skips sentences of more than 4,192 bytes
_TRAINED_ON = 20_000_000  # characters; bounds memory and time


class Tokenizer(ABC):
    """Converts text to tokens, which are integers below `vocab_size`, and tokens to text."""

    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> Tokens:
        """The tokens of a text."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> str:
        """The text of tokens."""


class Bytes(Tokenizer):
    """One token per UTF-8 byte; encodes any text."""

    vocab_size = 256

    def encode(self, text: str) -> Tokens:
        """One token per byte."""
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).int() if text else _no_tokens()

    def decode(self, tokens: Tokens) -> str:
        """The text; bytes that are not valid UTF-8, such as samples of an untrained network, become �."""
        return bytes(tokens.tolist()).decode(errors="replace")


class Characters(Tokenizer):
    """One token per character.

    Args:
        text: its distinct characters are the vocabulary.
    """

    def __init__(self, text: str) -> None:
        self._vocabulary = _code_points(text).unique()
        self.vocab_size = len(self._vocabulary)

    def encode(self, text: str) -> Tokens:
        """One token per character.

        Raises:
            TaskDataError: a character is not in the vocabulary.
        """
        points = _code_points(text)
        tokens = torch.searchsorted(self._vocabulary, points).clamp(max=self.vocab_size - 1)
        if (unknown := points[self._vocabulary[tokens] != points]).numel():
            raise TaskDataError(
                f"{shown(chr(int(unknown[0])))} is not among the {self.vocab_size} characters of the text"
            )
        return tokens.int()

    def decode(self, tokens: Tokens) -> str:
        """The text."""
        return "".join(map(chr, self._vocabulary[tokens.long()].tolist()))


class SentencePieces(Tokenizer):
    """Subwords of SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226); unknown characters become byte tokens.

    Args:
        model: a serialized SentencePiece model.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "SentencePieces":
        """Train on a text, at most on its first 20 million characters; the model is cached.

        Raises:
            TaskDataError: the text gives no vocabulary of that size.
        """
        text = text[:_TRAINED_ON]
        key = cache_key(sentencepiece.__version__, vocab_size, text)
        stored, _ = cached("sentencepiece", key, lambda: CacheEntry({"model": _bytes_of(_train(text, vocab_size))}, {}))
        return cls(stored["model"].numpy().tobytes())

    def encode(self, text: str) -> Tokens:
        """The tokens of the most likely segmentation."""
        return torch.tensor(self._processor.encode(text), dtype=torch.int32)

    def decode(self, tokens: Tokens) -> str:
        """The text."""
        return self._processor.decode(tokens.tolist())


def get_tokenizer(name: str, parts: Mapping[Split, str], vocab_size: int) -> Tokenizer:
    """Build the tokenizer of a text by name.

    Args:
        parts: the text of each split. SentencePiece trains on `train`. The characters are those of all splits, because
            `Characters` cannot encode any others.
        vocab_size: vocabulary size of SentencePiece [tokens].
    Raises:
        TaskDataError: the text gives no vocabulary of that size.
    """
    if name == "sentencepiece":
        return SentencePieces.train(parts["train"], vocab_size)
    return Bytes() if name == "bytes" else Characters("".join(parts.values()))


def _train(text: str, vocab_size: int) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(text),
            model_writer=model,
            vocab_size=vocab_size,
            num_threads=1,  # the same model on every machine
            byte_fallback=True,
            normalization_rule_name="identity",  # decoding restores the text exactly
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TaskDataError(_advice(str(error), vocab_size)) from error
    return model.getvalue()


def _sentences(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield from (line[start : start + _SENTENCE] for start in range(0, len(line), _SENTENCE))


def _advice(reason: str, vocab_size: int) -> str:
    """An error of SentencePiece with the vocabulary size that would work."""
    if largest := re.search(r"value <= (\d+)", reason):
        return (
            f"vocab_size is {vocab_size}, but the training text has only {largest[1]} different subwords; give "
            f"vocab_size={largest[1]} or less, or more text"
        )
    if smallest := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        return (
            f"vocab_size is {vocab_size}, but bytes and characters of the training text alone take {smallest[1]}; give "
            f"vocab_size={smallest[1]} or more, or another tokenizer"
        )
    return f"SentencePiece cannot be trained on the training text ({reason}); give more text, or another tokenizer"


def _code_points(text: str) -> Tokens:
    return torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32) if text else _no_tokens()


def _bytes_of(model: bytes) -> Tensor:
    return torch.frombuffer(bytearray(model), dtype=torch.uint8)


def _no_tokens() -> Tokens:
    return torch.empty(0, dtype=torch.int32)
