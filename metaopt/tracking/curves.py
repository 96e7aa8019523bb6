"""Losses of runs over their steps, thinned out, for a page that shows what is going on."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from ..core.text import shown
from .connection import connect, get_run
from .run_list import run_page
from .store_errors import translate_errors

LOSSES = (
    ("train_loss", "val_loss"),
    ("train_objective", "val_objective"),
    ("train_log_loss_change",),
    ("loss", "return"),
)
"""Metrics that a training logs while it runs: of phase 1, of phase 2 offline and online, and of phase 3."""

_INFINITE = sys.float_info.max  # what databases of MLflow store for an infinite value
_POINTS = 80  # of a curve [count]
_CHILDREN = 5  # of a run, the latest ones [count]
_DEPTH = 3  # of children: main job, phase, run [count]
_MOST = 4  # curves of a run [count]


class Curve(NamedTuple):
    """A metric of a run over its steps, finite values only."""

    run_id: str
    run_name: str
    metric: str
    steps: list[int]
    values: list[float]


class RunCurves(NamedTuple):
    """The losses of a run, and the address of its page after that of the MLflow UI."""

    curves: list[Curve]
    page: str


def loss_curves(run_id: str, tracking_uri: str | None = None) -> RunCurves:
    """Read the losses of a run; of the latest child run that has some, if it has none.

    Args:
        tracking_uri: as for `connect`.
    Raises:
        TrackingError: the store has no such run, or does not respond.
    """
    client = connect(tracking_uri)
    run = get_run(client, run_id)
    with translate_errors(f"cannot read the losses of run {shown(run_id)}", "check the tracking store"):
        curves = islice(_curves(client, run, _DEPTH), _MOST)
        return RunCurves([*curves], run_page(run.info.experiment_id, run_id))


def page_of_run(run_id: str, tracking_uri: str | None = None) -> str:
    """The address of the page of a run, after that of the MLflow UI.

    Raises:
        TrackingError: the store has no such run, or does not respond.
    """
    return run_page(get_run(connect(tracking_uri), run_id).info.experiment_id, run_id)


def _curves(client: MlflowClient, run: Run, depth: int) -> Iterator[Curve]:
    logged = ([name for name in group if name in run.data.metrics] for group in LOSSES)
    names = next(filter(None, logged), [])
    own = [curve for name in names if (curve := _curve(client, run, name)).values]
    has_curve = any(len(curve.values) > 1 for curve in own)
    children = [] if has_curve or not depth else _children(client, run)
    below = ([*_curves(client, each, depth - 1)] for each in children)
    yield from next(filter(None, below), own)


def _children(client: MlflowClient, run: Run) -> list[Run]:
    """The latest child runs, the latest first."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"
    found = client.search_runs([run.info.experiment_id], query, max_results=_CHILDREN, order_by=["start_time DESC"])
    return [*found]


def _curve(client: MlflowClient, run: Run, name: str) -> Curve:
    history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda each: (each.step, each.timestamp))
    kept = _thinned([each for each in history if abs(each.value) < _INFINITE])
    return Curve(
        run.info.run_id, run.info.run_name or "", name, [each.step for each in kept], [each.value for each in kept]
    )


def _thinned(points: Sequence[Metric]) -> list[Metric]:
    """Some of the points, evenly chosen, with the first and the last."""
    if len(points) <= _POINTS:
        return [*points]
    return [points[round(place * (len(points) - 1) / (_POINTS - 1))] for place in range(_POINTS)]
