"""What a corruption is."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Call(NamedTuple):
    """What is validated after a corruption."""

    paths: Sequence[Path]
    against: Sequence[Path] = ()


class Corruption(NamedTuple):
    """One way to damage files.

    Attributes:
        name: the kind of file and what is done to it.
        level: at which it must be found at the latest.
        check: which must find it; None for any.
        plant: damages a copy of clean files at random, and says what to validate.
    """

    name: str
    level: str
    check: str | None
    plant: Callable[[Path, random.Random], Call]
