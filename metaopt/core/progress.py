"""How far work is: a bar on a terminal, plain lines everywhere else, nothing where only warnings are wanted."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

_PAUSE = 15.0  # seconds between two lines


class Progress(Protocol):
    """Something that is told of each piece of work."""

    def update(self, count: int = 1, **figures: float) -> None:
        """Add finished pieces, and show the latest figures (`loss=0.3`)."""

    def skip(self, count: int) -> None:
        """Count pieces that need not be done, which says nothing of how long the others take."""


class _Silence:
    def update(self, count: int = 1, **figures: float) -> None:
        pass

    def skip(self, count: int) -> None:
        pass


NO_PROGRESS: Progress = _Silence()
"""For work that nobody watches."""


class _Bar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, count: int = 1, **figures: float) -> None:
        if figures:
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update(count)

    def skip(self, count: int) -> None:
        self._bar.n += count
        self._bar.initial += count
        self._bar.last_print_n += count  # or the next piece would seem to have been fast
        self._bar.refresh()


class _Lines:
    """A line at most every few seconds, so that the log of a long run stays readable."""

    def __init__(self, total: int, title: str, unit: str) -> None:
        self._total, self._title, self._unit = total, title, unit
        self._first = self._done = 0
        self._started = self._written = time.monotonic()

    def update(self, count: int = 1, **figures: float) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._written < _PAUSE and self._done < self._total:
            return
        self._written = now
        shown = "".join(f", {name} {value:.4g}" for name, value in figures.items())
        rate = (now - self._started) / max(self._done - self._first, 1)
        left = tqdm.format_interval(rate * max(self._total - self._done, 0))
        log.info("%s: %d of %d %ss%s, %s left", self._title, self._done, self._total, self._unit, shown, left)

    def skip(self, count: int) -> None:
        self._done += count
        self._first += count


@contextmanager
def progress(total: int, title: str, unit: str = "step") -> Iterator[Progress]:
    """Show progress while the block runs.

    Lines are log messages, so whoever sets the level of the logger `metaopt` above INFO gets neither these nor a bar.
    Worker processes draw no bars, which would overwrite each other: on a terminal, the process that started them does.

    Args:
        total: the whole work [pieces].
        title: what is being done ("TargetCNN, random seed 0").
        unit: what a piece is.
    """
    if not _is_terminal():
        yield _Lines(total, title, unit)
    elif parent_process() is not None or logging.getLogger("metaopt").level > logging.INFO:
        yield NO_PROGRESS
    else:
        with logging_redirect_tqdm(), tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True) as bar:
            yield _Bar(bar)


def _is_terminal() -> bool:
    """Whether bars can be drawn; a pseudo-terminal, as of a container, may have no size and would show none."""
    if not sys.stderr.isatty():
        return False
    try:
        return 0 not in os.get_terminal_size(sys.stderr.fileno())
    except OSError:  # something in its place that has no size
        return True


class _Share:
    def __init__(self, whole: Progress, count: int) -> None:
        self._whole, self.left = whole, count

    def update(self, count: int = 1, **figures: float) -> None:
        self.left -= count
        self._whole.update(count, **figures)

    def skip(self, count: int) -> None:
        self.left -= count
        self._whole.skip(count)


@contextmanager
def sub_progress(whole: Progress, count: int) -> Iterator[Progress]:
    """The part of the progress that a block makes; what it leaves undone, by failing or for being done, is skipped.

    Args:
        count: what the block is of the whole [pieces].
    """
    share = _Share(whole, count)
    try:
        yield share
    finally:
        share.skip(share.left)
