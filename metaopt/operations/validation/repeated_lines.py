"""Deep check of files of conversations: no line is there twice, in the file or in another one.

Two hashes of 64 bits are kept per line, so a file of ten million lines takes 240 MB. Two different lines of it have an
equal hash with a probability of 1 in 370,000.
"""

import hashlib
import json
import re
import unicodedata
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .base import DEEP, Check, Finding
from .conversations import objects, texts_of
from .subjects import Subject

_NOT_COMPARED = re.compile(r"[\s.,;:!?\"'“”‘’`*_]+")


class RepeatedLines(Check):
    """No line repeats another one of the file, of an earlier file, or of one of `--against`.

    Lines are equal if they have the same texts; also if these differ only in case, spaces, punctuation or the form of
    characters. `id` and `meta` are not compared.
    """

    level = DEEP
    kinds = ("conversations",)
    independent = True

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each repetition."""
        mine = subject.line_keys
        yield from _within(mine)
        for other in subject.of_kind(subject.earlier):
            yield from _between(mine, other.line_keys, f"of {other.name}", "Remove one of them")
        for other in subject.of_kind(subject.against):
            advice = "Results on it say nothing about other lines: remove it from one of the files"
            yield from _between(mine, other.line_keys, f"of {other.name}", advice)


class LineKeys(NamedTuple):
    """Hashes of the lines of a file that have a known schema.

    Attributes:
        numbers: of the lines, counted from 1.
        exact: of the texts.
        near: of what is compared of them.
    """

    numbers: NDArray[np.uint64]
    exact: NDArray[np.uint64]
    near: NDArray[np.uint64]


def line_keys(path: Path) -> LineKeys:
    """The hashes of a file, read a line at a time.

    Raises:
        FileFormatError: the file cannot be opened.
    """
    numbers, exact, near = array("Q"), array("Q"), array("Q")
    for number, value in objects(path):
        numbers.append(number)
        exact.append(_hash(texts_of(value)))
        near.append(_hash([_compared(text) for text in texts_of(value)]))
    return LineKeys(*(np.frombuffer(each, dtype=np.uint64) for each in (numbers, exact, near)))


def _hash(texts: list[str]) -> int:
    text = json.dumps(texts)  # ASCII, so that halves of surrogate pairs can be hashed
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _compared(text: str) -> str:
    return _NOT_COMPARED.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() or text


def _within(keys: LineKeys) -> Iterator[Finding]:
    _, first, inverse = np.unique(keys.near, return_index=True, return_inverse=True)
    for index in np.flatnonzero(first[inverse] != np.arange(len(keys.near))):
        yield _finding(keys, int(index), keys, int(first[inverse[index]]), "", "Remove one of them")


def _between(keys: LineKeys, others: LineKeys, of: str, advice: str) -> Iterator[Finding]:
    _, mine, theirs = np.intersect1d(keys.near, others.near, return_indices=True)
    first: Mapping[int, int] = dict(zip(keys.near[mine].tolist(), theirs.tolist(), strict=True))
    for index in np.flatnonzero(np.isin(keys.near, others.near)):
        yield _finding(keys, int(index), others, first[int(keys.near[index])], of, advice)


def _finding(keys: LineKeys, index: int, others: LineKeys, other: int, of: str, advice: str) -> Finding:
    how = "repeats" if keys.exact[index] == others.exact[other] else "differs only in case, spaces or punctuation from"
    where: Any = " ".join(filter(None, [f"it {how} line {others.numbers[other]}", of]))
    return Finding(f"line {keys.numbers[index]}", f"{where}. {advice}")
