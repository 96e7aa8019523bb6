"""Nowcasts as metrics of MLflow, TensorBoard, other loggers, or a function."""

import logging
from collections.abc import Callable
from typing import Any

from ..core.errors import InvalidConfig
from ..core.text import reason_of, shown
from .budget import TimeBudget
from .costs import NowcastCost
from .distributed import is_rank_0
from .policy import NowcastEvent

log = logging.getLogger(__name__)

Write = Callable[[dict[str, float], int], Any]


class MetricTargets:
    """Where the metrics of nowcasts are logged."""

    def __init__(self) -> None:
        self._targets: dict[int, tuple[str, Write]] = {}
        self._failed: set[int] = set()

    def add(self, target: Any) -> None:
        """Log to a target from now on; once, however often it is added.

        Raises:
            InvalidConfig: it cannot take metrics.
        """
        self._targets[id(target)] = getattr(target, "__name__", type(target).__name__), _writer(target)

    def log(self, event: NowcastEvent, cost: NowcastCost, budget: TimeBudget) -> None:
        """Log a nowcast."""
        if not self._targets or not is_rank_0():
            return
        metrics = metrics_of(event, cost, budget)
        for key, (name, write) in self._targets.items():
            try:
                write(metrics, event.step)
            except Exception as error:  # of any kind: a training does not end because a server does not answer
                if key not in self._failed:
                    self._failed.add(key)
                    log.warning("the metrics of a nowcast did not reach %s: %s. Told once", name, reason_of(error))


def metrics_of(event: NowcastEvent, cost: NowcastCost, budget: TimeBudget) -> dict[str, float]:
    """The metrics of a nowcast by name; those without a value are left out."""
    values = {
        "accepted": float(event.accepted),
        "followed": float(event.followed),
        "horizon": event.horizon,
        "gain": None if event.loss_before is None else event.gain,
        "loss_before": event.loss_before,
        "loss_after": event.loss_after,
        "forecast_seconds": cost.forecast,
        "guard_seconds": cost.guard,
        "reestimation_seconds": cost.reestimation,
        "overhead": budget.overhead,
    }
    return {f"nowcast/{name}": float(value) for name, value in values.items() if value is not None}


def _writer(target: Any) -> Write:
    if hasattr(target, "log_metrics"):  # mlflow, and loggers of Lightning
        return lambda metrics, step: target.log_metrics(metrics, step=step)
    if hasattr(target, "add_scalar"):  # TensorBoard
        return lambda metrics, step: [target.add_scalar(name, value, step) for name, value in metrics.items()]
    if callable(target):
        write: Write = target
        return write
    raise InvalidConfig(
        f"log_to got {shown(target)}; expected the module mlflow, a SummaryWriter, a logger with log_metrics, or a "
        "function of the metrics and the step"
    )
