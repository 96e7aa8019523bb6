"""How far a training is: a bar on a terminal, plain lines everywhere else."""

import logging
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
        """Add finished steps, and show the latest figures (`loss=0.3`)."""


class _Bar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, count: int = 1, **figures: float) -> None:
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(count)


class _Lines:
    """A line at most every few seconds, so that the log of a long run stays readable."""

    def __init__(self, total: int, title: str, done: int) -> None:
        self._total, self._title = total, title
        self._first = self._done = done
        self._started = self._written = time.monotonic()

    def update(self, count: int = 1, **figures: float) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._written < _PAUSE and self._done < self._total:
            return
        self._written = now
        shown = "".join(f", {name} {value:.4g}" for name, value in figures.items())
        left = (now - self._started) / max(self._done - self._first, 1) * max(self._total - self._done, 0)
        log.info("%s: %d of %d steps%s, %.0f s left", self._title, self._done, self._total, shown, left)


@contextmanager
def progress(total: int, title: str, done: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs.

    Args:
        total: the whole work [steps].
        title: what is being done ("TargetCNN, random seed 0").
        done: work that an earlier process did [steps].
    """
    if not sys.stderr.isatty() or parent_process() is not None:  # bars of several processes would overwrite each other
        yield _Lines(total, title, done)
        return
    with logging_redirect_tqdm(), tqdm(total=total, initial=done, desc=title, unit="step", dynamic_ncols=True) as bar:
        yield _Bar(bar)
