"""All parts of a portrait together."""

from dataclasses import dataclass

from ..generative.base import GenerativeOptimizer
from .attention import Attention, attention
from .horizons import Horizons, horizons
from .layers import Layers, layers
from .plane import Plane, plane
from .probed_run import ProbedRun


@dataclass(frozen=True)
class Diagnostics:
    """Measurements of one held-out training of the evaluation; small arrays, for figures.

    Attributes:
        seed: its random seed.
        rate: its learning rate, as the case states it.
        averaging: decay of the running average that all states are of; 0 for the weights themselves.
        examples: validation examples behind each loss [count].
        plane: None where the trajectory hardly moves, or a prediction is not finite.
        attention: None for optimizers that are no Perceiver.
    """

    seed: int
    rate: str
    averaging: float
    examples: int
    plane: Plane | None
    layers: Layers
    attention: Attention | None
    horizons: Horizons


def diagnose(course: ProbedRun, optimizer: GenerativeOptimizer) -> Diagnostics | None:
    """Measure a course; None where the budget is too short to predict anything whose future was recorded."""
    if not course.starts():
        return None
    return Diagnostics(
        seed=course.setup.seed,
        rate=str(course.setup.rate),
        averaging=optimizer.averaging,
        examples=course.examples,
        plane=plane(course, optimizer),
        layers=layers(course, optimizer),
        attention=attention(course, optimizer),
        horizons=horizons(course, optimizer),
    )
