"""What belongs together, in both directions: runs, the runs that they learned from, the versions that they judged."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from .connection import get_run, refusals
from .runs import MlflowTracker

LEARNED_FROM = "metaopt.trajectory_runs"
"""Tag of a phase-2 run: the phase-1 runs whose trajectories it used."""

USED_BY = "metaopt.optimizer_runs"
"""Tag of a phase-1 run: the phase-2 runs that used its trajectory."""

JUDGED = "metaopt.judged"
"""Tag of an evaluation: the registered version that it judged."""

_SHOWN = 8  # links in one line [count]
_LONGEST_TAG = 5000  # [characters]


def run_link(client: MlflowClient, run_id: str) -> str:
    """A run's name as a Markdown link to its page, which works inside MLflow's own pages."""
    info = get_run(client, run_id).info
    return f"[{info.run_name}](#/experiments/{info.experiment_id}/runs/{run_id})"


def version_link(name: str, version: int) -> str:
    """A registered version as a Markdown link to its page."""
    return f"[{name} version {version}](#/models/{quote(name, safe='')}/versions/{version})"


def learned_from(tracker: MlflowTracker, run_ids: Sequence[str]) -> None:
    """Let a phase-2 run name the phase-1 runs that it used, and let each of them name it."""
    client, unique = tracker.client, list(dict.fromkeys(run_ids))
    if not unique:
        return
    tracker.tags({LEARNED_FROM: ",".join(unique)})
    links = ", ".join(run_link(client, run_id) for run_id in unique[:_SHOWN])
    more = f" and {len(unique) - _SHOWN} more (tag `{LEARNED_FROM}`)" if len(unique) > _SHOWN else ""
    tracker.note(see=f"Trajectories of: {links}{more}")
    ours = run_link(client, tracker.run_id)
    for run_id in unique:
        _mention(client, run_id, tracker.run_id, ours)


def judges_version(tracker: MlflowTracker, name: str, version: int) -> None:
    """Let an evaluation name the registered version that it judges."""
    with refusals(f"cannot link {name} version {version}", "look the version up in `mlflow ui`"):
        tracker.tags({JUDGED: f"models:/{name}/{version}"})
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_inputs(tracker.run_id, models=[LoggedModelInput(model_id)])


def judged_version(tracker: MlflowTracker, name: str, version: int, figures: Mapping[str, float], step: int) -> None:
    """Let the version that an evaluation judged show the evaluation's main figures on the page of its model."""
    with refusals(f"cannot link {name} version {version}", "look the version up in `mlflow ui`"):
        model_id = logged_model_id(tracker.client, name, version)
        now = int(time.time() * 1000)
        if model_id:
            metrics = [Metric(key, value, now, step, model_id=model_id) for key, value in figures.items()]
            tracker.client.log_batch(tracker.run_id, metrics)


def gave_version(tracker: MlflowTracker, name: str, version: int) -> None:
    """Let a run that has the run that registered a version below it show that version, too."""
    with refusals(f"cannot link {name} version {version}", "look the version up in `mlflow ui`"):
        model_id = logged_model_id(tracker.client, name, version)
        if model_id:
            tracker.client.log_outputs(tracker.run_id, [LoggedModelOutput(model_id, step=0)])


def logged_model_id(client: MlflowClient, name: str, version: int) -> str | None:
    """The logged model behind a registered version; None for one that was registered from elsewhere."""
    source = client.get_model_version(name, str(version)).source or ""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _mention(client: MlflowClient, run_id: str, user: str, link: str) -> None:
    tags = get_run(client, run_id).data.tags
    users = tags.get(USED_BY, "")
    note = tags.get(MLFLOW_RUN_NOTE, "")
    joined = ",".join(filter(None, [users, user]))
    described = f"{note}, {link}" if "\nUsed by: " in note else f"{note}\nUsed by: {link}"
    if user in users or max(len(joined), len(described)) > _LONGEST_TAG:
        return
    client.set_tag(run_id, USED_BY, joined)
    client.set_tag(run_id, MLFLOW_RUN_NOTE, described)
