"""What an evaluation measured, as plain values."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..nowcast.policy import NowcastEvent

HOLD = "hold"
"""The twin that only its base optimizer moves: what all others are compared with."""

CHAMPION = "champion"
"""The registered version that a judged one is to beat."""

SCHEMA = 2


class Point(NamedTuple):
    """One look at a training: steps done, validation loss, time spent in training so far [s]."""

    step: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """How one contender's training went with one random seed and one learning rate.

    Attributes:
        rate: the learning rate as the case states it: a number, or low:high.
        cached: whether it was trained in an earlier evaluation, and its seconds measured then.
    """

    contender: str
    seed: int
    points: tuple[Point, ...]
    events: tuple[NowcastEvent, ...] = ()
    rate: str = ""
    cached: bool = False

    @property
    def steps(self) -> list[int]:
        """Where the loss was measured [steps]."""
        return [point.step for point in self.points]

    @property
    def losses(self) -> list[float]:
        """Validation losses, in the order of the steps."""
        return [point.loss for point in self.points]

    @property
    def best(self) -> float:
        """The lowest validation loss; infinite where none is a number."""
        return min((loss for loss in self.losses if not math.isnan(loss)), default=math.inf)

    @property
    def guard_passes(self) -> int:
        """Forward passes over the guard's batch [count]."""
        return sum(event.guard_calls for event in self.events)


@dataclass(frozen=True)
class Prediction:
    """One unguarded prediction, made from a state of the hold twin.

    Attributes:
        predictor: a contender or a control.
        step: where the prediction was made [steps].
        loss_before, loss_after: validation loss of W_t and of the prediction.
        error: squared distance to what the hold twin's weights became, relative to that of W_t (1 is "hold"); None
            for controls and where the hold twin did not go that far.
        rate: the hold twin's learning rate, as in `Curve`.
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
    """Distances of predictions to the nearest weights seen in meta-training, relative to that of two trainings.

    Attributes:
        nearest: least such distance of the predictions of each random seed; near 0 they are copies of what was seen.
        of_states: the same for the states W_t that the predictions were made from.
        snapshots: weights seen in meta-training that have the layout of the network [count].
        permuted: whether distances are up to permutation of hidden units; else the network is no chain of layers.
    """

    nearest: tuple[float, ...]
    of_states: tuple[float, ...]
    snapshots: int
    permuted: bool


@dataclass(frozen=True)
class Comparison:
    """All that an evaluation measured.

    Attributes:
        config: the configuration of the evaluation, as plain values.
        judged: the name under which the judged optimizer stands among the contenders.
        curves: one per contender, random seed and learning rate.
        predictions: one per predictor, random seed, learning rate and nowcast.
        novelty: how far from anything seen in meta-training the judged predictions are; None where nothing was given.
    """

    config: Mapping[str, Any]
    judged: str
    curves: tuple[Curve, ...]
    predictions: tuple[Prediction, ...]
    novelty: Novelty | None = None

    @property
    def rates(self) -> list[str]:
        """The learning rates that were compared."""
        return list(dict.fromkeys(curve.rate for curve in self.curves))

    @property
    def contenders(self) -> list[str]:
        """Names in the order of comparison: hold first, the judged optimizer last."""
        return list(dict.fromkeys(curve.contender for curve in self.curves))

    @property
    def controls(self) -> list[str]:
        """Names of the controls that were run."""
        return [name for name in dict.fromkeys(p.predictor for p in self.predictions) if name not in self.contenders]

    def curves_of(self, contender: str) -> list[Curve]:
        """A contender's curves, in the order of the random seeds."""
        return [curve for curve in self.curves if curve.contender == contender]

    def predictions_of(self, predictor: str) -> list[Prediction]:
        """What a contender or a control predicted."""
        return [prediction for prediction in self.predictions if prediction.predictor == predictor]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; figures that are not finite become None."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "judged": self.judged,
            "curves": [plain(curve) for curve in self.curves],
            "predictions": [plain(prediction) for prediction in self.predictions],
            "novelty": plain(self.novelty),
        }


def plain(value: Any) -> Any:
    """Nested dataclasses and named tuples as mappings and lists that strict JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
