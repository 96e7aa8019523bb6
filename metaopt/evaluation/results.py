"""Results of an evaluation as plain values: curves, single predictions and novelty.

`Comparison.to_mapping` gives the contents of `evaluation.json`. Its `schema` is raised when a key changes:

    2: curves and predictions have a `rate`.
    3: `looks` of a nowcast is `guard_calls`, and `straight` of the configuration is `min_cosine`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..nowcast.policy import NowcastEvent

HOLD = "hold"
"""Contender: the base optimizer alone, with which all others are compared."""

CHAMPION = "champion"
"""Contender: the registered version that is compared with a candidate for promotion."""

NOWCAST_EMA = "EMA"
"""Suffix of a contender: the exponential moving average of its weights, which moves with each nowcast."""

AVERAGE = "+ average"
"""Suffix of a trained baseline: the growing average of its weights."""

NO_GUARD = "without guard"
"""Suffix of the candidate: every finite forecast is accepted."""

SCHEMA = 3
"""Version of the keys in `evaluation.json`."""


def label(contender: str, base_optimizer: str) -> str:
    """The name of a contender for people: *hold* is the base optimizer alone ("Adam alone")."""
    return f"{base_optimizer} alone" if contender == HOLD else contender


class Point(NamedTuple):
    """One measurement of a run: finished steps, validation loss, training time so far [s]."""

    step: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """The validation losses and nowcasts of one contender, with one random seed and one learning rate.

    Attributes:
        points: the measurements, at the same steps for all contenders.
        events: the nowcasts.
        rate: the learning rate as in the configuration: a number, or low:high.
        cached: whether an earlier evaluation trained the run and measured its seconds.
    """

    contender: str
    seed: int
    points: tuple[Point, ...]
    events: tuple[NowcastEvent, ...] = ()
    rate: str = ""
    cached: bool = False

    @property
    def steps(self) -> list[int]:
        """The steps of the measurements [steps]."""
        return [point.step for point in self.points]

    @property
    def losses(self) -> list[float]:
        """Validation losses, in the order of the steps."""
        return [point.loss for point in self.points]

    @property
    def best(self) -> float:
        """The lowest validation loss; infinite if all are NaN."""
        return min((loss for loss in self.losses if not math.isnan(loss)), default=math.inf)

    @property
    def guard_passes(self) -> int:
        """Forward passes over the guard's batch [count]."""
        return sum(event.guard_calls for event in self.events)


@dataclass(frozen=True)
class Prediction:
    """One unguarded prediction from a state of the hold run.

    Attributes:
        predictor: a contender or a control.
        step: the step of W_t [steps].
        loss_before, loss_after: validation loss of W_t and of the prediction.
        error: squared distance to the true weights at `t_end`, relative to the distance of W_t, which has 1; None for
            controls, and for a `t_end` after the end of the run.
        rate: the learning rate of the hold run, as in `Curve`.
    """

    predictor: str
    seed: int
    step: int
    loss_before: float
    loss_after: float
    error: float | None
    rate: str = ""


@dataclass(frozen=True)
class Novelty:
    """Distances of predictions to the nearest snapshots of meta-training; the distance between two trainings is 1.

    Attributes:
        nearest: smallest distance of the predictions of each random seed; near 0 they are copies.
        of_states: the same for the weights W_t from which the predictions start.
        snapshots: snapshots of meta-training that have the layout of the network [count].
        permuted: whether distances are up to permutation of hidden units; False if the network is not sequential.
    """

    nearest: tuple[float, ...]
    of_states: tuple[float, ...]
    snapshots: int
    permuted: bool


@dataclass(frozen=True)
class Comparison:
    """All measurements of an evaluation.

    Attributes:
        config: the configuration of the evaluation, as plain values.
        candidate: the contender name of the evaluated optimizer.
        curves: one per contender, random seed and learning rate.
        predictions: one per predictor, random seed, learning rate and nowcast.
        novelty: of the candidate's predictions; None without trajectories of meta-training.
    """

    config: Mapping[str, Any]
    candidate: str
    curves: tuple[Curve, ...]
    predictions: tuple[Prediction, ...]
    novelty: Novelty | None = None

    @property
    def rates(self) -> list[str]:
        """The learning rates, in the order of the runs."""
        return list(dict.fromkeys(curve.rate for curve in self.curves))

    @property
    def contenders(self) -> list[str]:
        """Names of the contenders: hold first, the candidate last."""
        return list(dict.fromkeys(curve.contender for curve in self.curves))

    @property
    def controls(self) -> list[str]:
        """Names of the controls."""
        return [name for name in dict.fromkeys(p.predictor for p in self.predictions) if name not in self.contenders]

    def curves_of(self, contender: str) -> list[Curve]:
        """The curves of a contender, in the order of the random seeds."""
        return [curve for curve in self.curves if curve.contender == contender]

    def predictions_of(self, predictor: str) -> list[Prediction]:
        """The single predictions of a contender or a control."""
        return [prediction for prediction in self.predictions if prediction.predictor == predictor]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; figures that are not finite are None."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "judged": self.candidate,
            "curves": [plain(curve) for curve in self.curves],
            "predictions": [plain(prediction) for prediction in self.predictions],
            "novelty": plain(self.novelty),
        }


def plain(value: Any) -> Any:
    """Convert nested dataclasses and named tuples to mappings and lists for strict JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
