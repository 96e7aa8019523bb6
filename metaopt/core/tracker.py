"""The tracker interface: records parameters, metrics, files, figures and descriptions of a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FINAL_VAL_LOSS = "final_val_loss"
"""Metric of every run that ends with networks of one kind: their validation loss at the end, the mean over them."""

SPEEDUP = "speedup"
"""Metric of every run that measures nowcasts: steps of the base optimizer alone to a loss / steps with nowcasts."""


class Parent(Protocol):
    """A run that can have child runs."""

    def child(self, name: str) -> AbstractContextManager["Tracker"]:
        """Start a child run. It ends with the block: finished, failed or killed."""


class Tracker(Parent, Protocol):
    """A run. `metaopt.tracking.MlflowTracker` writes to MLflow; `SilentTracker` discards everything."""

    @property
    def run_id(self) -> str | None:
        """ID of the run in the tracking store; None without a store."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters; parameters that the run already has keep their values."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record tags; later values replace earlier ones."""

    def describe(self, *, purpose: str | None = None, result: str | None = None, links: str | None = None) -> None:
        """Describe the run in Markdown, a line for each argument.

        Args:
            purpose: what the run does; replaces an earlier purpose.
            result: what it measured; replaces an earlier result.
            links: related runs, versions and files; added to earlier links.
        """

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of a step; implementations may write them in batches."""

    def dataset(self, name: str, source: str, digest: str, context: str) -> None:
        """Record a data set that the run reads.

        Args:
            source: path or address of the data.
            digest: identifies the contents, at most 36 characters.
            context: what the data is used for.
        """

    def text(self, text: str, name: str) -> None:
        """Store a text file, such as `report.md`."""

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure as `<name>.png` and `<name>.svg`."""

    def files(self, paths: Sequence[Path], folder: str) -> None:
        """Store files in a folder, and last a manifest with their SHA-256: a folder without one is incomplete."""

    def has_files(self, run_id: str, folder: str) -> bool:
        """Whether a run of the same store has a complete folder of files."""

    def picklable_parent(self) -> Parent:
        """This run as a parent for another process, which can be pickled."""


class SameRun:
    """A parent whose only child is a given run: a single training is recorded in the run itself."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    @contextmanager
    def child(self, name: str) -> Iterator[Tracker]:
        """Return the run; the code that started it ends it."""
        yield self._tracker


class SilentTracker:
    """A tracker that discards everything, for libraries and tests."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Ignore parameters."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Ignore tags."""

    def describe(self, *, purpose: str | None = None, result: str | None = None, links: str | None = None) -> None:
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

    def has_files(self, run_id: str, folder: str) -> bool:
        """Return True: without a store there is nothing to upload."""
        return True

    @contextmanager
    def child(self, name: str) -> "Iterator[SilentTracker]":
        """Another silent tracker."""
        yield SilentTracker()

    def picklable_parent(self) -> "SilentTracker":
        """Another silent tracker."""
        return SilentTracker()
