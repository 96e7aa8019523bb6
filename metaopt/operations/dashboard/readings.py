"""What the process beside the dashboard reads: `Helper` calls these functions there."""

import time

from .views import CurveView, LossesView


def read_losses(run_id: str, store: str, ui: str | None) -> LossesView:
    """Read the losses of a run.

    Args:
        store: address of the tracking store.
        ui: address of the MLflow UI, for links.
    Raises:
        TrackingError: the store has no such run, or does not respond.
    """
    from ...tracking.curves import loss_curves  # MLflow takes seconds to import

    found = loss_curves(run_id, store)
    return LossesView(
        curves=[CurveView(**curve._asdict()) for curve in found.curves],
        pages={run_id: ui + found.page} if ui else {},
        problem="" if found.curves else "no losses yet",
        read=time.time(),
    )
