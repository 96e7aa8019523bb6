"""All measurements of one hold run."""

from dataclasses import dataclass

from ..generative.base import GenerativeOptimizer
from .attention import Attention, attention
from .horizons import Horizons, horizons
from .layers import Layers, layers
from .plane import Plane, plane
from .probed_run import ProbedRun


@dataclass(frozen=True)
class Diagnostics:
    """All measurements of one hold run.

    Attributes:
        seed: its random seed.
        rate: its learning rate, as in the configuration.
        averaging: decay of the running average that all states contain; 0 for the weights themselves.
        examples: validation examples of each loss [count].
        plane: None if the trajectory hardly moves or a prediction is not finite.
        attention: None unless the optimizer is a Perceiver.
    """

    seed: int
    rate: str
    averaging: float
    examples: int
    plane: Plane | None
    layers: Layers
    attention: Attention | None
    horizons: Horizons


def diagnose(run: ProbedRun, optimizer: GenerativeOptimizer) -> Diagnostics | None:
    """Measure the predictions of an optimizer; None if the run is too short for a prediction of recorded weights."""
    if not run.starts():
        return None
    return Diagnostics(
        seed=run.setup.seed,
        rate=str(run.setup.rate),
        averaging=optimizer.averaging,
        examples=run.examples,
        plane=plane(run, optimizer),
        layers=layers(run, optimizer),
        attention=attention(run, optimizer),
        horizons=horizons(run, optimizer),
    )
