"""Links between runs, the trajectories that they used, registered versions and evaluations."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric

from .connection import get_run, translate_errors
from .runs import MlflowTracker
from .tags import DESCRIPTION_TAG, EVALUATED_TAG, LONGEST_TAG, OPTIMIZER_RUNS_TAG, TRAJECTORY_RUNS_TAG

_LINKS_PER_LINE = 8
_FIND_VERSION = "find the version in `mlflow ui`"


def run_link(client: MlflowClient, run_id: str) -> str:
    """A Markdown link to the page of a run, relative to the MLflow UI."""
    info = get_run(client, run_id).info
    return f"[{info.run_name}](#/experiments/{info.experiment_id}/runs/{run_id})"


def version_link(name: str, version: int) -> str:
    """A Markdown link to the page of a registered version."""
    return f"[{name} version {version}](#/models/{quote(name, safe='')}/versions/{version})"


def link_trajectories(tracker: MlflowTracker, run_ids: Sequence[str]) -> None:
    """Link a phase-2 run with the phase-1 runs whose trajectories it used, in both directions.

    Runs that the store does not have, as for trajectories that were copied from another machine, are left out.
    """
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
    with translate_errors(f"cannot link {name} version {version}", _FIND_VERSION):
        tracker.tags({EVALUATED_TAG: f"models:/{name}/{version}"})
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_inputs(tracker.run_id, models=[LoggedModelInput(model_id)])


def log_evaluation_metrics(
    tracker: MlflowTracker, name: str, version: int, figures: Mapping[str, float], step: int
) -> None:
    """Log the main figures of an evaluation as metrics of the evaluated version's logged model."""
    with translate_errors(f"cannot link {name} version {version}", _FIND_VERSION):
        model_id = logged_model_id(tracker.client, name, version)
        now = int(time.time() * 1000)
        if model_id:
            metrics = [Metric(key, value, now, step, model_id=model_id) for key, value in figures.items()]
            tracker.client.log_batch(tracker.run_id, metrics)


def link_version(tracker: MlflowTracker, name: str, version: int) -> None:
    """Make a registered version an output of a run, in addition to the child run that registered it."""
    with translate_errors(f"cannot link {name} version {version}", _FIND_VERSION):
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_outputs(tracker.run_id, [LoggedModelOutput(model_id, step=0)])


def logged_model_id(client: MlflowClient, name: str, version: int) -> str | None:
    """ID of the logged model of a registered version; None if the version has another source."""
    source = client.get_model_version(name, str(version)).source or ""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


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
