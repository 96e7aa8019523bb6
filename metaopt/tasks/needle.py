"""Needles in a haystack: a sentence with a number is hidden in a text, which asks for the number at its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from ..core.config import option
from ..core.errors import InvalidConfig
from .base import Batch
from .retrieval import UNASKED, Retrieval, RetrievalConfig
from .text import read_text
from .tokenizers import Bytes, Tokens

_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
_NAMES = ("apple", "bread", "chair", "dance", "eagle", "flute", "grape", "house", "ivory", "jewel", "knife", "lemon")


class PasskeyConfig(RetrievalConfig):
    """Number and length of the examples, and digits of the hidden number."""

    block_size: int = option(default=256, help="Context length: tokens of one example, which are bytes.", at_least=1)
    digits: int = option(default=5, help="Digits of a hidden number [count].", at_least=1, at_most=18)


class NeedleConfig(PasskeyConfig):
    """The text that hides the sentences, and their number."""

    data_dir: Path | None = option(
        default=None, help="A text file in UTF-8, or a folder of *.txt files, that hides them; none: a short text."
    )
    needles: int = option(
        default=1, help="Hidden sentences [count]; one is asked for.", at_least=1, at_most=len(_NAMES)
    )


class Haystack(Retrieval):
    """Base class: sentences with numbers hidden in a text of bytes, and a question for one of the numbers.

    Args:
        text: what hides them; it begins anywhere, and begins again at its end.
        needles: hidden sentences [count].
    Raises:
        InvalidConfig: a context that is too short for sentences, question and answer.
    """

    sentence: ClassVar[str]
    question: ClassVar[str]

    def __init__(self, config: PasskeyConfig, text: str, needles: int = 1) -> None:
        hidden = needles * len(self.sentence.format(name=_NAMES[0], number="0" * config.digits))
        self._room = config.block_size + 1 - hidden - len(self.question.format(name=_NAMES[0])) - config.digits
        if self._room < 0:
            raise InvalidConfig(
                f"block_size is {config.block_size}, but what is hidden and the question take "
                f"{config.block_size - self._room} tokens; raise block_size"
            )
        self._digits, self._needles = config.digits, needles
        whole = text.encode()
        self._begins, self._haystack = len(whole), whole * (self._room // len(whole) + 2)
        super().__init__(self._draw, Bytes.vocab_size, config)

    def decode(self, tokens: Tokens) -> str:
        """The text of tokens."""
        return Bytes().decode(tokens)

    def _draw(self, count: int, random: torch.Generator) -> Batch:
        size = (count, self._needles)
        begins = torch.randint(self._begins, (count,), generator=random).tolist()
        depths = torch.rand(size, generator=random).sort(descending=True).values.tolist()
        digits = torch.randint(10, (*size, self._digits), generator=random).tolist()
        names = torch.ones(count, len(_NAMES)).multinomial(self._needles, generator=random).tolist()
        asked = torch.randint(self._needles, (count,), generator=random).tolist()
        texts = map(self._example, begins, depths, digits, names, asked)
        tokens = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8).view(count, -1).int()
        labels = tokens[:, 1:].clone()
        labels[:, : -self._digits] = UNASKED
        return Batch(tokens[:, :-1].contiguous(), labels)

    def _example(
        self, begin: int, depths: Sequence[float], digits: Sequence[Sequence[int]], names: Sequence[int], asked: int
    ) -> bytes:
        """The haystack with its needles, deepest first, the question and the answer."""
        text = self._haystack[begin : begin + self._room]
        numbers = ["".join(map(str, number)) for number in digits]
        places = [text.rfind(b" ", 0, int(depth * self._room)) + 1 for depth in depths]  # between two words
        for place, number, name in zip(places, numbers, names, strict=True):
            hidden = self.sentence.format(name=_NAMES[name], number=number).encode()
            text = text[:place] + hidden + text[place:]
        return text + (self.question.format(name=_NAMES[names[asked]]) + numbers[asked]).encode()


class Passkey(Haystack):
    """Passkey retrieval: a number hidden at a random depth of repeated sentences, asked for at the end.

        import metaopt

        task = metaopt.load_task("passkey", examples=100)
        inputs, _ = task.splits["train"][:1]
        task.decode(inputs[0])  # … is green. The pass key is 83502. Remember it. The sky … The pass key is 8350

    The sentences of Landmark Attention (Mohtashami & Jaggi 2023, arXiv:2305.16300), shortened; the digits of the answer
    count. Chance is a loss of ln(10) and an accuracy of 0.1 per digit. Tokens are bytes.
    """

    Config = PasskeyConfig
    sentence = "The pass key is {number}. Remember it. "
    question = " What is the pass key? The pass key is "

    def __init__(self, config: PasskeyConfig) -> None:
        super().__init__(config, _FILLER)


class Needle(Haystack):
    """Needle in a haystack: sentences with numbers hidden in a text, of which one is asked for at the end.

        import metaopt

        task = metaopt.load_task("needle", needles=2, examples=100)
        inputs, _ = task.splits["train"][:1]
        task.decode(inputs[0])  # … The magic number of eagle is 83502. … The magic number of eagle is 8350

    As in RULER (Hsieh et al. 2024, arXiv:2404.06654) with shorter sentences. The text is that of `data_dir`, beginning
    anywhere, or repeated sentences. Other hidden sentences have other names. Chance and tokens are as in `Passkey`.
    """

    Config = NeedleConfig
    sentence = "The magic number of {name} is {number}. "
    question = " What is the magic number of {name}? The magic number of {name} is "

    def __init__(self, config: NeedleConfig) -> None:
        text = _FILLER
        if config.data_dir is not None:
            text, self.notes = read_text(config.data_dir)
        super().__init__(config, text, config.needles)
