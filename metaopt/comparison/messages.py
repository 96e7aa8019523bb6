"""Advice of `Nowcast`, such as on a missing guard, once per comparison and not at each of its trainings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..nowcast import advice


class AdviceOnce(logging.Filter):
    """Lets each text pass once.

    Attributes:
        told: the texts so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the text of a message is new."""
        text = record.getMessage()
        new = text not in self.told
        self.told.add(text)
        return new

    @contextmanager
    def active(self) -> Iterator[None]:
        """Filter the advice of `Nowcast` inside the block."""
        advice.log.addFilter(self)
        try:
            yield
        finally:
            advice.log.removeFilter(self)
