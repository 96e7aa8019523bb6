"""Results of a comparison: what each training measured, and what the pairs of trainings show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from ..core.errors import FileFormatError
from ..core.text import reason_of


class Arm(StrEnum):
    """The two trainings of a random seed."""

    PLAIN = "plain"
    NOWCAST = "nowcast"


class Point(NamedTuple):
    """A loss that a training reported.

    Attributes:
        seconds: time of the training until then.
    """

    step: int
    loss: float
    seconds: float


class Event(NamedTuple):
    """A nowcast: its step, whether the guard accepted it, and whether the weights moved."""

    step: int
    accepted: bool
    followed: bool


Metrics = Mapping[str, float]
"""Values that a training function returned, by name."""


@dataclass(frozen=True)
class TrialResult:
    """What one training measured.

    Attributes:
        steps: steps of the optimizer [count].
        seconds: time from the call of `Trial.optimizer` to the end of the function.
        metrics: of the weights at the end of the training.
        averaged: of running averages of the weights, by name.
        reason: why there are none.
        kept: which weights the guard prefers at the end, `raw` or `averaged`; None without a guard or an average.
        curve: the reported losses.
        events: the nowcasts.
        digests: of the weights after the first steps, by step; equal trainings have equal ones.
        overhead: time that nowcasts added, as a fraction of that of the steps; None without a `Nowcast`.
        comparison: digest of the comparison that ran it; another one can reuse it.
    """

    arm: Arm
    seed: int
    steps: int
    seconds: float
    metrics: Metrics
    averaged: Mapping[str, Metrics] = field(default_factory=dict)
    reason: str | None = None
    kept: str | None = None
    curve: tuple[Point, ...] = ()
    events: tuple[Event, ...] = ()
    digests: Mapping[int, str] = field(default_factory=dict)
    overhead: float | None = None
    comparison: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """The result as JSON values; numbers that are not finite are texts."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "TrialResult":
        """Restore a result of `to_mapping`.

        Raises:
            FileFormatError: it is not the result of a training.
        """
        try:
            averaged, reason, kept = values["averaged"], values["reason"], values["kept"]
            overhead = values["overhead"]
            return cls(
                Arm(values["arm"]),
                int(values["seed"]),
                int(values["steps"]),
                float(values["seconds"]),
                _numbers(values["metrics"]),
                {str(name): _numbers(metrics) for name, metrics in averaged.items()},
                None if reason is None else str(reason),
                None if kept is None else str(kept),
                tuple(Point(int(step), float(loss), float(seconds)) for step, loss, seconds in values["curve"]),
                tuple(Event(int(step), bool(kept), bool(moved)) for step, kept, moved in values["events"]),
                {int(step): str(digest) for step, digest in values["digests"].items()},
                None if overhead is None else float(overhead),
                str(values["comparison"]),
            )
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise FileFormatError(f"it is not the result of a training ({reason_of(error)})") from error

    def with_metric(self, name: str) -> "TrialResult":
        """The same result, in which a single metric has the name that the user gave it."""
        if name in self.metrics:
            return self

        def named(metrics: Metrics) -> Metrics:
            return dict.fromkeys([name], *metrics.values())

        averaged = {average: named(metrics) for average, metrics in self.averaged.items()}
        return replace(self, metrics=named(self.metrics), averaged=averaged)


class Failure(NamedTuple):
    """A training that raised an exception, and where."""

    arm: Arm
    seed: int
    reason: str

    @property
    def sentence(self) -> str:
        """What failed, and what to do."""
        return (
            f"The {self.arm} training of random seed {self.seed} failed: {self.reason}. The same command runs it "
            "again, and keeps the others"
        )


@dataclass(frozen=True)
class TrainingComparison:
    """All trainings of a comparison.

    Attributes:
        name: of the training function, as the user named it.
        metric: name of the metric that is compared.
        lower_is_better: whether lower values of it are better.
        least: size of a difference that counts [%].
        seeds: random seeds, in order.
        results: of the trainings that ended.
        failures: the other trainings.
        doubts: reasons why the pairs are not exact twins, in sentences.
    """

    name: str
    metric: str
    lower_is_better: bool
    least: float
    seeds: Sequence[int]
    results: Sequence[TrialResult]
    failures: Sequence[Failure] = ()
    doubts: Sequence[str] = ()

    def of(self, arm: Arm) -> dict[int, TrialResult]:
        """The results of an arm by random seed."""
        return {result.seed: result for result in self.results if result.arm is arm}

    @property
    def paired_seeds(self) -> list[int]:
        """The random seeds of which both trainings ended."""
        plain, nowcast = self.of(Arm.PLAIN), self.of(Arm.NOWCAST)
        return [seed for seed in self.seeds if seed in plain and seed in nowcast]

    @property
    def timed_seeds(self) -> list[int]:
        """The random seeds of which one comparison ran both trainings, so that their seconds can be compared."""
        plain, nowcast = self.of(Arm.PLAIN), self.of(Arm.NOWCAST)
        return [seed for seed in self.paired_seeds if plain[seed].comparison == nowcast[seed].comparison]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
