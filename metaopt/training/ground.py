"""What a meta-training stands on: recorded trajectories, or trainings that run while it learns."""

from typing import Any, Protocol

from ..weights.layout import Layout
from .meta_run import MetaRun
from .progress import Progress
from .tracker import Tracker


class Ground(Protocol):
    """Gives a meta-training its updates and its judgement, an epoch at a time.

    What an epoch does depends on its number and the configuration alone, so that a resumed meta-training equals one
    that was never stopped.
    """

    learned: list[str]
    """Names of what is learned from."""
    held_out: list[str]
    """Names of what only judges."""
    subjects: list[str]
    """What is trained there, each once ("MLP on digits")."""
    layouts: list[Layout]
    """The networks that it trains on."""
    stride: float
    """Steps between the snapshots of a history [steps]."""
    settings: dict[str, Any]
    """What must not change when a meta-training goes on."""

    def describe(self, tracker: Tracker) -> None:
        """Tell where the data comes from."""

    def updates(self, epoch: int) -> int:
        """About how many updates an epoch has [count]."""

    def prepare(self, run: MetaRun) -> None:
        """Do what takes time before the first update, and show its progress."""

    def train(self, run: MetaRun, bar: Progress) -> dict[str, float]:
        """Train for the epoch that the run is in; figures of it."""

    def judge(self, run: MetaRun) -> dict[str, float]:
        """Figures of the averaged weights on what was held out."""
