"""Links between runs, the trajectories that they used, registered versions and evaluations.

A link that the store does not accept is a warning: it only describes a run.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric

from ..core.errors import TrackingError
from .connection import get_run
from .store_errors import translate_errors
from .tags import DESCRIPTION_TAG, EVALUATED_TAG, LONGEST_TAG, OPTIMIZER_RUNS_TAG, TRAJECTORY_RUNS_TAG
from .tracker import MlflowTracker

_LINKS_PER_LINE = 8

log = logging.getLogger(__name__)


def run_link(client: MlflowClient, run_id: str) -> str:
    """A Markdown link to the page of a run, relative to the MLflow UI; the ID alone if the store does not respond."""
    try:
        info = get_run(client, run_id).info
    except TrackingError:
        return f"run `{run_id}`"
    return f"[{info.run_name}](#/experiments/{info.experiment_id}/runs/{run_id})"


def version_link(name: str, version: int) -> str:
    """A Markdown link to the page of a registered version."""
    return f"[{name} version {version}](#/models/{quote(name, safe='')}/versions/{version})"


def link_trajectories(tracker: MlflowTracker, run_ids: Sequence[str]) -> None:
    """Link a phase-2 run with the phase-1 runs whose trajectories it used, in both directions.

    Runs that the store does not have, as for trajectories that were copied from another machine, are left out.
    """
    with _describing("the links to trajectories"):
        client = tracker.client
        unique = [run_id for run_id in dict.fromkeys(run_ids) if tracker.has_run(run_id)]
        if not unique:
            return
        tracker.tags({TRAJECTORY_RUNS_TAG: ",".join(unique)})
        links = ", ".join(run_link(client, run_id) for run_id in unique[:_LINKS_PER_LINE])
        omitted = len(unique) - _LINKS_PER_LINE
        more = f" and {omitted} more (tag `{TRAJECTORY_RUNS_TAG}`)" if omitted > 0 else ""
        tracker.describe(links=f"Trajectories of: {links}{more}")
        link = run_link(client, tracker.run_id)
        for run_id in unique:
            _add_user(client, run_id, tracker.run_id, link)


def link_evaluation(tracker: MlflowTracker, name: str, version: int) -> None:
    """Link an evaluation with the registered version that it evaluates."""
    with _describing(f"the links to {name} version {version}"):
        tracker.tags({EVALUATED_TAG: f"models:/{name}/{version}"})
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_inputs(tracker.run_id, models=[LoggedModelInput(model_id)])


def log_evaluation_metrics(
    tracker: MlflowTracker, name: str, version: int, figures: Mapping[str, float], step: int
) -> None:
    """Log the main figures of an evaluation as metrics of the evaluated version's logged model."""
    with _describing(f"the links to {name} version {version}"):
        model_id = logged_model_id(tracker.client, name, version)
        now = int(time.time() * 1000)
        if model_id:
            metrics = [Metric(key, value, now, step, model_id=model_id) for key, value in figures.items()]
            tracker.client.log_batch(tracker.run_id, metrics)


def link_version(tracker: MlflowTracker, name: str, version: int) -> None:
    """Make a registered version an output of a run, in addition to the child run that registered it."""
    with _describing(f"the links to {name} version {version}"):
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_outputs(tracker.run_id, [LoggedModelOutput(model_id, step=0)])


def logged_model_id(client: MlflowClient, name: str, version: int) -> str | None:
    """ID of the logged model of a registered version; None if the version has another source."""
    source = client.get_model_version(name, str(version)).source or ""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


@contextmanager
def _describing(what: str) -> Iterator[None]:
    try:
        with translate_errors(f"{what} cannot be stored", "add them in `mlflow ui`"):
            yield
    except TrackingError as error:
        log.warning("%s", error)


def _add_user(client: MlflowClient, run_id: str, user: str, link: str) -> None:
    """Add a phase-2 run to the tag and the description of a phase-1 run, as long as they stay below the limit."""
    tags = get_run(client, run_id).data.tags
    users = tags.get(OPTIMIZER_RUNS_TAG, "")
    description = tags.get(DESCRIPTION_TAG, "")
    new_users = ",".join(filter(None, [users, user]))
    separator = ", " if "\nUsed by: " in description else "\nUsed by: "
    new_description = f"{description}{separator}{link}"
    if user in users or max(len(new_users), len(new_description)) > LONGEST_TAG:
        return
    client.set_tag(run_id, OPTIMIZER_RUNS_TAG, new_users)
    client.set_tag(run_id, DESCRIPTION_TAG, new_description)
