"""The interface of probes: which networks a probe is for, what it measures, and what its result consists of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from ..core.config import Config
from ..tasks import Batch, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
"""A row of a table: values by the names of the columns, which all rows have; None for a value that does not exist."""


MOST_EXAMPLES = 5
"""Examples in a summary: those that have changed most [count]."""


class ProbeConfig(Config):
    """A probe without parameters."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe has measured.

    Attributes:
        values: the main numbers by name, all finite. For equal networks, names that end in `ratio` or `cosine` are 1,
            pairs that end in `before` and `after` are equal, and all others are 0.
        rows: the details, such as a row for each matrix.
        summary: a shorter table for people, such as a row for each kind of layer; empty where `rows` is short.
        figures: draw a figure each, by name.
    """

    values: Mapping[str, float]
    rows: Sequence[Row]
    summary: Sequence[Row] = ()
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)


class Probe(ABC):
    """Base class of probes, which compare a network before and after a change.

    A subclass is final. The first line of its docstring says what it measures, `how_to_read` what its numbers mean.
    `run_probe` calls it in a frame in which nothing that it does to the mode of the networks or to random numbers
    remains; it must not change weights, and remove its own hooks (`watching`).
    """

    Config: ClassVar[type[Config]] = ProbeConfig
    how_to_read: ClassVar[str] = ""
    """A paragraph of Markdown: units, what is small and what is large, what is left out."""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config or self.Config()

    def reason(self, model: nn.Module, task: Task) -> str | None:
        """Why the probe does not apply to a network, as the end of a sentence; None if it does."""
        return None

    @abstractmethod
    def measure(self, before: nn.Module, after: nn.Module, task: Task, examples: Batch) -> ProbeResult:
        """Compare a network before and after a change.

        Both have one architecture and are on one device, in evaluation mode, with the examples. Gradients are off.

        Args:
            examples: of one split of the task.
        Raises:
            InvalidConfig: the examples have nothing to measure.
        """
