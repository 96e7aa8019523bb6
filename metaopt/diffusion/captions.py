"""Captions of coloured shapes: scenes in words, synonyms of these words, and a tokenizer with a fixed vocabulary."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.registry import suggest
from ..core.text import shown

PAD = 0
"""The token of places without a word."""

END = 1
"""The token that ends each prompt."""

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = ("left", "right", "up", "down")

NEW_WORDS: Mapping[str, str] = {
    "red": "crimson", "green": "lime", "blue": "navy", "yellow": "golden",
    "circle": "disc", "square": "box", "triangle": "wedge", "cross": "plus",
    "left": "west", "right": "east", "up": "north", "down": "south",
}  # fmt: skip
"""The synonym of each old word."""

PROMPT_LENGTH = 8
"""Tokens of a prompt, the end and the padding included [count]."""


class Scene(NamedTuple):
    """What a video shows: numbers of a colour, a shape and a direction."""

    colour: int
    shape: int
    direction: int

    def caption(self, new: Sequence[bool] = (False, False, False)) -> str:
        """The scene in words: `a red square moving left`.

        Args:
            new: whether colour, shape and direction are named by their new words.
        """
        words = (COLOURS[self.colour], SHAPES[self.shape], DIRECTIONS[self.direction])
        colour, shape, direction = (
            NEW_WORDS[word] if is_new else word for word, is_new in zip(words, new, strict=True)
        )
        return f"a {colour} {shape} moving {direction}"


SCENES = tuple(
    Scene(colour, shape, direction)
    for colour in range(len(COLOURS))
    for shape in range(len(SHAPES))
    for direction in range(len(DIRECTIONS))
)
"""All scenes."""


class Tokenizer:
    """A tokenizer of whole words. Its vocabulary is fixed, so that networks and captions always agree.

        from metaopt.diffusion import Tokenizer

        tokenizer = Tokenizer()
        tokens = tokenizer.encode(["a red square moving left", ""])  # [2, 8]: words, an end, padding
        tokenizer.decode(tokens)  # ['a red square moving left', '']

    Args:
        words: all words, in the order of their tokens after padding and end; by default those of the captions.
        length: tokens of a prompt [count].
    """

    def __init__(self, words: Iterable[str] | None = None, length: int = PROMPT_LENGTH) -> None:
        ours = ("a", "moving", *NEW_WORDS, *NEW_WORDS.values())
        self.length = length
        self.words = ("<pad>", "</s>", *(ours if words is None else words))
        self._numbers = {word: number for number, word in enumerate(self.words)}

    @property
    def digest(self) -> str:
        """A digest of the vocabulary and the length: 32 hexadecimal characters."""
        return hashlib.sha256(json.dumps([self.length, *self.words]).encode()).hexdigest()[:32]

    def encode(self, prompts: Sequence[str]) -> Int[Tensor, "prompts length"]:
        """The tokens of prompts: words, an end, padding. The empty prompt is an end alone.

        Raises:
            InvalidConfig: a word is not in the vocabulary, or a prompt is too long.
        """
        return torch.tensor([self._row(prompt) for prompt in prompts], dtype=torch.long).reshape(-1, self.length)

    def decode(self, tokens: Int[Tensor, "prompts length"]) -> list[str]:
        """The prompts of tokens."""
        return [" ".join(self.words[token] for token in row if token > END) for row in tokens.tolist()]

    def _row(self, prompt: str) -> list[int]:
        words = prompt.split()
        for word in words:
            if self._numbers.get(word, PAD) <= END:
                known = self.words[END + 1 :]
                raise InvalidConfig(
                    f"the word {shown(word)} of the prompt {shown(prompt)} is not in the vocabulary of "
                    f"{len(known)} words: {suggest(word, known)}"
                )
        if len(words) >= self.length:
            raise InvalidConfig(
                f"the prompt {shown(prompt)} has {len(words)} words; expected at most {self.length - 1}"
            )
        return [*(self._numbers[word] for word in words), END, *[PAD] * (self.length - len(words) - 1)]


def mask_of(tokens: Int[Tensor, "*prompts length"]) -> Tensor:
    """Whether each place of prompts holds a token, as booleans of the same shape."""
    return tokens != PAD
