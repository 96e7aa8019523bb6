"""Packing of conversations into examples of one length, and the tokenizers that its check reads them with.

Only what the assistant says counts in the loss: the labels of all other tokens are −100, which PyTorch's cross-entropy
ignores.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...core.dependencies import import_extra
from ...core.errors import FileFormatError, InvalidConfig, TaskDataError
from ...core.text import reason_of, shown
from ...tasks.tokenizers import Bytes, SentencePieces, Tokenizer, Tokens
from ...weights.regular import MAX_TEXT, opened
from .conversations import ROLES

MASKED = -100
"""Label of a token that does not count in the loss."""

END = "<|end|>"
"""Text at the end of each message, which the assistant must learn to say, too."""

_BEGIN = {role: f"<|{role}|>\n" for role in ROLES}

Message = Mapping[str, str]


@dataclass(frozen=True)
class Packed:
    """An example of several conversations.

    Attributes:
        input_ids: the tokens.
        labels: the same, or −100 for those that do not count in the loss.
        conversations: their messages.
    """

    input_ids: list[int]
    labels: list[int]
    conversations: list[Sequence[Message]]

    def line(self) -> dict[str, Any]:
        """The example as an object of the schema `packed_v1`."""
        return {
            "schema": "packed_v1",
            "input_ids": self.input_ids,
            "labels": self.labels,
            "conversations": [[dict(message) for message in each] for each in self.conversations],
            "end": END,
        }


def pack(
    conversations: Iterable[Sequence[Message]], tokenizer: Tokenizer, length: int, padding: int = 0
) -> Iterator[Packed]:
    """Pack conversations into examples of one length, in their order; none is divided.

        from metaopt.operations.validation import pack
        from metaopt.tasks.tokenizers import Bytes

        chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
        (example,) = pack([chat], Bytes(), length=64)
        print(sum(label >= 0 for label in example.labels))  # 8: the answer and its end mark

    A message is rendered as `<|role|>`, a line break, its content, the end mark and another line break. Each of these
    parts is tokenized alone, so the mask is exact for every tokenizer.

    Args:
        length: of each example [tokens].
        padding: token after the last conversation.
    Raises:
        TaskDataError: a conversation is longer than `length`, or contains a mark.
    """
    tokens, labels, packed = list[int](), list[int](), list[Sequence[Message]]()
    for number, messages in enumerate(conversations, 1):
        more, their_labels = _rendered(messages, tokenizer, number)
        if len(more) > length:
            raise TaskDataError(
                f"the conversation {number} has {len(more):,} tokens; expected at most {length:,}. Leave it out, or "
                "give a greater length"
            )
        if len(tokens) + len(more) > length:
            yield _padded(tokens, labels, packed, length, padding)
            tokens, labels, packed = [], [], []
        tokens += more
        labels += their_labels
        packed.append(messages)
    if packed:
        yield _padded(tokens, labels, packed, length, padding)


def read_tokenizer(source: str) -> Tokenizer:
    """The tokenizer that `--tokenizer` names.

    Args:
        source: `bytes`, a SentencePiece model (`.model`) or a `tokenizer.json` of Hugging Face.
    Raises:
        InvalidConfig: it is none of these.
        FileFormatError: the file cannot be read.
    """
    if source == "bytes":
        return Bytes()
    path = Path(source)
    if path.suffix not in (".model", ".json"):
        raise InvalidConfig(f"tokenizer is {shown(source)}; expected bytes, a file .model or a file tokenizer.json")
    with opened(path, "a tokenizer") as (file, _):
        stored = file.read(2 * MAX_TEXT)
    try:
        return SentencePieces(stored) if path.suffix == ".model" else _HuggingFace(stored)
    except (RuntimeError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path} is no tokenizer ({reason_of(error)}); expected one of its kind") from error
    except InvalidConfig:
        raise
    except Exception as error:  # tokenizers raises bare exceptions
        raise FileFormatError(f"{path} is no tokenizer ({reason_of(error)}); expected one of its kind") from error


class _HuggingFace(Tokenizer):
    """A tokenizer of the package tokenizers."""

    def __init__(self, stored: bytes) -> None:
        self._tokenizer = import_extra("tokenizers", "transformers").Tokenizer.from_buffer(stored)
        self.vocab_size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Tokens:
        """The tokens, without those that a template would add."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)

    def decode(self, tokens: Tokens) -> str:
        """The text, with special tokens."""
        text: str = self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        return text


def _rendered(messages: Sequence[Message], tokenizer: Tokenizer, number: int) -> tuple[list[int], list[int]]:
    """The tokens of a conversation, and their labels."""
    tokens, labels = list[int](), list[int]()
    for message in messages:
        content = message["content"]
        if any(mark in content for mark in (END, *map(str.strip, _BEGIN.values()))):
            raise TaskDataError(f"the conversation {number} contains a mark such as {END}; leave it out")
        answers = message["role"] == "assistant"
        for text, counts in ((_BEGIN[message["role"]], False), (content + END, answers), ("\n", False)):
            ids = tokenizer.encode(text).tolist()
            tokens += ids
            labels += ids if counts else [MASKED] * len(ids)
    return tokens, labels


def _padded(tokens: list[int], labels: list[int], packed: list[Sequence[Message]], length: int, padding: int) -> Packed:
    rest = length - len(tokens)
    return Packed(tokens + [padding] * rest, labels + [MASKED] * rest, packed)
