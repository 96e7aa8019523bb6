"""Observers of runs: collect snapshots, and measure weights that are derived from the weights of a run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..nowcast.optimizer import Nowcast
from ..weights.averaging import ExponentialMovingAverage
from .paired_runs import RunSetup
from .read_outs import DerivedWeights
from .results import NOWCAST_EMA, Curve


class ReadOutObserver:
    """Measures weights that are derived from those of a run.

    Args:
        derived: makes the derived weights, by contender name.
    """

    def __init__(self, setup: RunSetup, derived: Mapping[str, Callable[[], DerivedWeights]]) -> None:
        self._setup, self._policy = setup, setup.config.policy
        self._derived = {name: make() for name, make in derived.items()}
        self._losses: dict[str, list[float]] = {name: [] for name in derived}

    def __call__(self, step: int, weights: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Process the weights after a step."""
        for name, derived in self._derived.items():
            derived.update(weights, self._policy.snapshot_due(step))
            if self._setup.config.measured_at(step):
                self._losses[name].append(self._setup.validation_loss(derived.weights()))

    def curves(self, observed: Curve) -> list[Curve]:
        """A curve for each of the derived weights; the seconds are those of the observed run.

        Args:
            observed: the curve of the observed run.
        """
        return [_derived_curve(observed, name, losses) for name, losses in self._losses.items()]


class HoldObserver(ReadOutObserver):
    """Collects the snapshots of a hold run, and measures the baselines that are derived from it.

        observer = HoldObserver(setup, DERIVED_BASELINES)
        hold = train_contender(setup, "hold", observer=observer)
        curves = [hold, *observer.curves(hold)]

    Args:
        derived: makes the derived weights, by contender name.
        averaging: decay of the running average that the snapshots contain; 0 for the weights themselves.
    """

    def __init__(
        self, setup: RunSetup, derived: Mapping[str, Callable[[], DerivedWeights]], *, averaging: float = 0.0
    ) -> None:
        super().__init__(setup, derived)
        self.snapshots: dict[int, Tensor] = {}
        self._average = ExponentialMovingAverage(averaging)

    def __call__(self, step: int, weights: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Process the weights after a step."""
        if step:
            self._average.update([weights])
        if self._policy.snapshot_due(step):
            self.snapshots[step] = (self._average.tensors[0] if step else weights).to("cpu", copy=True)
        super().__call__(step, weights, optimizer)


class AverageObserver:
    """Measures the running average that a nowcasting run keeps."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._losses: list[float] = []

    def __call__(self, step: int, weights: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Measure the average after a step."""
        assert isinstance(optimizer, Nowcast)
        if self._setup.config.measured_at(step):
            with optimizer.averaged_weights() as model:
                averaged = self._setup.layout.read(model)
            self._losses.append(self._setup.validation_loss(averaged))

    def curve(self, observed: Curve) -> Curve:
        """The curve of the average; the seconds are those of the observed run."""
        return _derived_curve(observed, NOWCAST_EMA, self._losses)


def _derived_curve(observed: Curve, name: str, losses: list[float]) -> Curve:
    padded = losses + [math.nan] * (len(observed.points) - len(losses))
    points = (point._replace(loss=loss) for point, loss in zip(observed.points, padded, strict=True))
    return replace(observed, contender=name, points=tuple(points), events=())
