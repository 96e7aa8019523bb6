"""Standard check of packed conversations: only what the assistant says counts in the loss, and all of it does."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...core.text import shown
from .base import STANDARD, CannotCheck, Check, Finding
from .conversations import objects
from .subjects import Subject

if TYPE_CHECKING:
    from ...tasks.tokenizers import Tokenizer


class PackedMasks(Check):
    """All instructions and all padding are masked, and each answer of the assistant counts with its end mark.

    It compares texts, so any template may have rendered the conversations: the tokens that count, decoded, must be the
    answers with their end marks, in their order, and the other tokens must contain the instructions.
    """

    level = STANDARD
    kinds = ("conversations",)
    independent = True

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each packed example."""
        tokenizer = None
        for number, value in objects(subject.path):
            if value["schema"] != "packed_v1":
                raise CannotCheck("it has no packed examples")
            if tokenizer is None:
                from .packing import read_tokenizer  # it imports torch, which takes seconds

                tokenizer = read_tokenizer(subject.settings.tokenizer)
            if (problem := mask_problem(value, tokenizer)) is not None:
                yield Finding(f"line {number}", problem)


def mask_problem(value: Mapping[str, Any], tokenizer: "Tokenizer") -> str | None:
    """What is wrong with the mask of a packed example, and what to do; None if nothing.

    Args:
        value: an object of the schema `packed_v1`.
        tokenizer: that of its tokens.
    """
    from .packing import MASKED

    tokens, labels = value["input_ids"], value["labels"]
    for place, (token, label) in enumerate(zip(tokens, labels, strict=False)):
        if label not in (MASKED, token):
            return f"the label {place} is {label}; expected the token itself, {token}, or {MASKED}. Pack it again"
        if not 0 <= token < tokenizer.vocab_size:
            return f"the token {place} is {shown(token)}; the tokenizer has {tokenizer.vocab_size:,}. Give another one"
    answers, masked = _decoded(tokens, labels, tokenizer)
    messages = [message for conversation in value["conversations"] for message in conversation]
    expected = [each["content"] + value["end"] for each in messages if each["role"] == "assistant"]
    if answers != expected:
        return _difference(answers, expected)
    return _missing([each["content"] for each in messages if each["role"] != "assistant"], masked)


def _decoded(tokens: list[int], labels: list[int], tokenizer: "Tokenizer") -> tuple[list[str], str]:
    """The text of each run of tokens that count, and all other text."""
    import torch

    from .packing import MASKED

    answers, masked = list[str](), list[str]()
    for is_masked, run in groupby(zip(tokens, labels, strict=False), key=lambda pair: pair[1] == MASKED):
        text = tokenizer.decode(torch.tensor([token for token, _ in run], dtype=torch.int32))
        (masked if is_masked else answers).append(text)
    return answers, "\0".join(masked)


def _difference(answers: list[str], expected: list[str]) -> str:
    for number, (found, wanted) in enumerate(zip(answers, expected, strict=False), 1):
        if found != wanted:
            return (
                f"the run {number} of tokens that count is {shown(found)}; expected the answer with its end mark, "
                f"{shown(wanted)}, and nothing else. Correct the mask"
            )
    return f"{len(answers)} runs of tokens count, and the assistant has {len(expected)} answers. Correct the mask"


def _missing(instructions: list[str], masked: str) -> str | None:
    place = 0
    for text in instructions:
        found = masked.find(text, place)
        if found < 0:
            return f"the instruction {shown(text)} is not among the masked tokens; pack these conversations again"
        place = found + len(text)
    return None
