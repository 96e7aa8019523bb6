"""The interface of checks: which subjects a check is for, at which level, and what it finds.

This module does not import torch, so that quick checks start at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ...core.config import Config

if TYPE_CHECKING:
    from .subjects import Subject

QUICK, STANDARD, DEEP = LEVELS = ("quick", "standard", "deep")
"""How much is read: headers, all values, or whatever it takes to compute what a file states again."""

KINDS = ("trajectory", "checkpoint", "model", "conversations")
"""Kinds of subjects: the folder of a trajectory; a checkpoint of any phase; an exported optimizer, policy or network; a
file of conversations, completions or reasoning examples, a JSON object per line."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        where: the file, the tensor or the line, as a reader looks for it.
        message: what came, what was expected and what to do.
    """

    where: str
    message: str


class CannotCheck(Exception):
    """Why a check cannot judge a subject, as the end of a sentence: neither a success nor a finding."""


class CheckConfig(Config):
    """A check without parameters."""


class Check(ABC):
    """Base class of checks.

    A subclass is final. The first line of its docstring says what it checks. It reads the subject and changes nothing.
    """

    Config: ClassVar[type[Config]] = CheckConfig
    level: ClassVar[str]
    """One of `LEVELS`. A check runs at its level and above, if the checks of lower levels found nothing."""
    kinds: ClassVar[tuple[str, ...]]
    """The subjects that it is for, some of `KINDS`."""
    version: ClassVar[int] = 1
    """Raised whenever the check finds something else than before, so that a record says what a file has passed."""
    independent: ClassVar[bool] = False
    """Whether it runs in any case, because it leaves out what a check of a lower level finds."""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config or self.Config()

    @abstractmethod
    def check(self, subject: "Subject") -> Iterable[Finding]:
        """What is wrong with a subject; nothing for a good one. Findings may be made one by one.

        Raises:
            CannotCheck: what it needs is not there, such as the data of a task.
            MetaoptError: the subject cannot be read; the message becomes a finding.
        """
