"""Progress: a bar on a terminal, log lines elsewhere, nothing if only warnings are logged."""

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

from .control import control
from .text import counted

log = logging.getLogger(__name__)

_PAUSE = 15.0  # between two lines [s]
_LONG = 60.0  # work that is worth an announcement [s]


class Progress(Protocol):
    """Receives the number of finished steps and the latest figures, and counts the steps for `core.control`."""

    def update(self, count: int = 1, **figures: float) -> None:
        """Add finished steps and show figures, such as `loss=0.3`."""

    def skip(self, count: int) -> None:
        """Count steps as finished, but not for the estimate of the remaining time."""


class _NoProgress:
    def update(self, count: int = 1, **figures: float) -> None:
        control.steps += count

    def skip(self, count: int) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()
"""Shows nothing."""


class _Bar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, count: int = 1, **figures: float) -> None:
        control.steps += count
        if figures:
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update(count)

    def skip(self, count: int) -> None:
        self._bar.n += count
        self._bar.initial += count
        self._bar.last_print_n += count  # else they would count for the rate
        self._bar.refresh()


class _Lines:
    def __init__(self, total: int, title: str, unit: str) -> None:
        self._total, self._title, self._unit = total, title, unit
        self._first = self._done = 0
        self._started = self._written = time.monotonic()

    def update(self, count: int = 1, **figures: float) -> None:
        control.steps += count
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

        from metaopt.core.progress import progress

        with progress(100, "MLP, random seed 0") as bar:
            for _ in range(100):
                bar.update(loss=0.3)

    A level of the logger `metaopt` above INFO turns both lines and bars off. Worker processes draw no bars, because
    bars of several processes overwrite each other; the process that started them draws one.

    Args:
        total: all steps [count].
        title: name of the work ("TargetCNN, random seed 0").
        unit: singular noun for a step.
    """
    if not _is_terminal():
        yield _Lines(total, title, unit)
    elif parent_process() is not None or logging.getLogger("metaopt").level > logging.INFO:
        yield NO_PROGRESS
    else:
        with logging_redirect_tqdm(), tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True) as bar:
            yield _Bar(bar)


def _is_terminal() -> bool:
    """Whether bars can be drawn: pseudo-terminals, as of containers, may have no size and show none."""
    if not sys.stderr.isatty():
        return False
    try:
        return 0 not in os.get_terminal_size(sys.stderr.fileno())
    except OSError:  # a replacement of stderr without a file descriptor of a terminal
        return True


class _Announced:
    def __init__(self, whole: Progress, total: int, after: int, advice: str) -> None:
        self._whole, self._left, self._after, self._advice = whole, total, after, advice
        self._done, self._started = 0, time.monotonic()

    def update(self, count: int = 1, **figures: float) -> None:
        before, self._done = self._done, self._done + count
        self._left -= count
        if before < self._after <= self._done:
            self._announce()
        self._whole.update(count, **figures)

    def skip(self, count: int) -> None:
        self._left -= count
        self._whole.skip(count)

    def _announce(self) -> None:
        seconds = (time.monotonic() - self._started) / self._done * self._left
        if seconds >= _LONG:
            minutes = counted(max(round(seconds / 60), 1), "minute")
            log.info("this takes about %s; shorter with %s", minutes, self._advice)


def announced(whole: Progress, total: int, after: int, advice: str) -> Progress:
    """The same progress; logs once how long the rest of the work will take, if it takes minutes.

    Args:
        total: all steps [count].
        after: steps whose time is measured [count]; skipped ones do not count.
        advice: what makes the work shorter ("fewer --seeds").
    """
    return _Announced(whole, total, after, advice)


class _SubProgress:
    def __init__(self, whole: Progress, total: int) -> None:
        self._whole, self.remaining = whole, total

    def update(self, count: int = 1, **figures: float) -> None:
        self.remaining -= count
        self._whole.update(count, **figures)

    def skip(self, count: int) -> None:
        self.remaining -= count
        self._whole.skip(count)


@contextmanager
def sub_progress(whole: Progress, total: int) -> Iterator[Progress]:
    """Progress of a block within the progress of the whole; steps that the block does not finish are skipped.

    Args:
        total: steps of the block [count].
    """
    part = _SubProgress(whole, total)
    try:
        yield part
    finally:
        part.skip(part.remaining)
