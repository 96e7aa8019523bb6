"""What a training tells the outside: parameters, metrics, files and figures of its run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Parent(Protocol):
    """Something below which runs can be opened."""

    def child(self, name: str) -> AbstractContextManager["Tracker"]:
        """A run of its own below this one; it ends as its block does."""


class Tracker(Parent, Protocol):
    """One run. MLflow is one implementation; `SilentTracker` serves libraries and unit tests."""

    @property
    def run_id(self) -> str | None:
        """Identifies the run where there is a tracking server, else None."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters; those that the run already has are left alone."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record tags, replacing older values."""

    def note(self, *, does: str | None = None, result: str | None = None, see: str | None = None) -> None:
        """Describe the run to people: what it does, what came of it, what belongs to it; a line of Markdown each.

        A line that is not given stays as it is; what belongs to the run is added to what was said before.
        """

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics at a step; written in batches."""

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record data that the run reads: where it comes from and at most 36 characters that identify it."""

    def text(self, text: str, name: str) -> None:
        """Store a text file (`config.json`, `report.md`) with the run."""

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure, as `<name>.png` and `<name>.svg`, with the run."""

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Store files in a folder of the run, then a manifest with their sha256: a folder without one is unfinished."""

    def elsewhere(self) -> Parent:
        """What another process needs to open runs below this one; it can be pickled."""


class OwnRun:
    """Gives a run itself where a run below it is asked for."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    @contextmanager
    def child(self, name: str) -> Iterator[Tracker]:
        """The run itself; whoever opened it ends it."""
        yield self._tracker


class SilentTracker:
    """A tracker that keeps nothing."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Ignore parameters."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Ignore tags."""

    def note(self, *, does: str | None = None, result: str | None = None, see: str | None = None) -> None:
        """Ignore a description."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore metrics."""

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Ignore a dataset."""

    def text(self, text: str, name: str) -> None:
        """Ignore a text."""

    def figure(self, figure: "Figure", name: str) -> None:
        """Ignore a figure."""

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Ignore files."""

    @contextmanager
    def child(self, name: str) -> "Iterator[SilentTracker]":
        """Another silent tracker."""
        yield SilentTracker()

    def elsewhere(self) -> "SilentTracker":
        """Another silent tracker."""
        return SilentTracker()
