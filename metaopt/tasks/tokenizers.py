"""Text as numbers and back: bytes, characters, or pieces that SentencePiece learns."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import sentencepiece
import torch
from jaxtyping import Int
from torch import Tensor

from ..core.errors import TaskDataError
from .base import Split
from .cache import Made, cached, key_of

Tokens = Int[Tensor, " tokens"]

_SENTENCE = 1000  # characters; SentencePiece passes over what is longer than 4,192 bytes
_LEARNED_FROM = 20_000_000  # characters; bounds memory and time


class Tokenizer(ABC):
    """Turns text into tokens, which are whole numbers below `vocab_size`, and tokens into text."""

    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> Tokens:
        """The tokens of a text."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> str:
        """The text of tokens."""


class Bytes(Tokenizer):
    """A token is a byte of UTF-8; any text can be said."""

    vocab_size = 256

    def encode(self, text: str) -> Tokens:
        """One token for each byte."""
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).int() if text else _none()

    def decode(self, tokens: Tokens) -> str:
        """The text; bytes that are no UTF-8, as an untrained network gives them, become �."""
        return bytes(tokens.tolist()).decode(errors="replace")


class Characters(Tokenizer):
    """A token is a character.

    Args:
        text: the characters that can be said are those that occur in it.
    """

    def __init__(self, text: str) -> None:
        self._alphabet = _code_points(text).unique()
        self.vocab_size = len(self._alphabet)

    def encode(self, text: str) -> Tokens:
        """One token for each character.

        Raises:
            TaskDataError: a character that the alphabet lacks.
        """
        points = _code_points(text)
        tokens = torch.searchsorted(self._alphabet, points).clamp(max=self.vocab_size - 1)
        if (unknown := points[self._alphabet[tokens] != points]).numel():
            raise TaskDataError(f"{chr(int(unknown[0]))!r} is not among the {self.vocab_size} characters of the text")
        return tokens.int()

    def decode(self, tokens: Tokens) -> str:
        """The text."""
        return "".join(map(chr, self._alphabet[tokens.long()].tolist()))


class Pieces(Tokenizer):
    """A token is a piece of a word (Kudo & Richardson 2018, arXiv:1808.06226); what was never seen is said in bytes.

    Args:
        model: what SentencePiece has learned, in its own format.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()

    @classmethod
    def learned(cls, text: str, vocab_size: int) -> "Pieces":
        """Learn pieces from a text, or from its first 20 million characters; kept in the cache folder.

        Raises:
            TaskDataError: the text has too few or too many different pieces for such a vocabulary.
        """
        text = text[:_LEARNED_FROM]
        key = key_of(sentencepiece.__version__, vocab_size, text)
        stored, _ = cached("sentencepiece", key, lambda: Made({"model": _bytes_of(_learn(text, vocab_size))}, {}))
        return cls(stored["model"].numpy().tobytes())

    def encode(self, text: str) -> Tokens:
        """The most likely pieces."""
        return torch.tensor(self._processor.encode(text), dtype=torch.int32)

    def decode(self, tokens: Tokens) -> str:
        """The text."""
        return self._processor.decode(tokens.tolist())


def get_tokenizer(name: str, parts: Mapping[Split, str], vocab_size: int) -> Tokenizer:
    """The tokenizer of a text, by name.

    Args:
        parts: the text of each split. Pieces are learned from `train`; the alphabet is that of all parts, since a
            character that is never learned cannot be said at all.
        vocab_size: how many pieces to learn.
    Raises:
        TaskDataError: the text does not give a vocabulary of that size.
    """
    if name == "sentencepiece":
        return Pieces.learned(parts["train"], vocab_size)
    return Bytes() if name == "bytes" else Characters("".join(parts.values()))


def _learn(text: str, vocab_size: int) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(text),
            model_writer=model,
            vocab_size=vocab_size,
            num_threads=1,  # the same pieces on every machine
            byte_fallback=True,
            normalization_rule_name="identity",  # what is decoded is what was encoded
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TaskDataError(_why_not(str(error), vocab_size)) from error
    return model.getvalue()


def _sentences(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield from (line[start : start + _SENTENCE] for start in range(0, len(line), _SENTENCE))


def _why_not(reason: str, vocab_size: int) -> str:
    """What SentencePiece says, as advice."""
    if ceiling := re.search(r"value <= (\d+)", reason):
        return (
            f"vocab_size is {vocab_size}, but the training text has only {ceiling[1]} different pieces; give "
            f"vocab_size={ceiling[1]} or less, or more text"
        )
    if floor := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        return (
            f"vocab_size is {vocab_size}, but bytes and characters of the training text alone take {floor[1]}; give "
            f"vocab_size={floor[1]} or more, or another tokenizer"
        )
    return f"SentencePiece learns no pieces from the training text ({reason}); give more text, or another tokenizer"


def _code_points(text: str) -> Tokens:
    return torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32) if text else _none()


def _bytes_of(model: bytes) -> Tensor:
    return torch.frombuffer(bytearray(model), dtype=torch.uint8)


def _none() -> Tokens:
    return torch.empty(0, dtype=torch.int32)
