"""Finds recordings in the store and downloads the trajectories that are not in the local folder.

A recording consists of the runs that it lists, not of all runs with its name: a name can be used again, by the same
user or by others.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from ..core.errors import StorageError, TrackingError
from ..core.text import shown
from ..trajectories.recording_file import (
    RECORDING_FILE,
    RECORDING_TAG,
    UPLOAD_FOLDER,
    local_trajectories,
    read_recording,
    read_run_id,
    write_run_id,
)
from .artifacts import download_files, download_text, is_complete
from .connection import connect, default_experiment
from .store_errors import translate_errors
from .tags import PARENT_TAG

log = logging.getLogger(__name__)


class Recording(NamedTuple):
    """The run that made a recording, and the run ID of each trajectory by the name of its folder."""

    run_id: str
    trajectories: dict[str, str]


def find_recordings(run_name: str, experiment: str | None = None) -> Iterator[Recording]:
    """Find the recordings of a run name in an experiment, the newest first.

    Args:
        experiment: ID of the MLflow experiment; by default that of new runs.
    Raises:
        TrackingError: the store cannot be searched.
        FileFormatError: the list of a recording is damaged.
    """
    client = connect()
    experiment = experiment or default_experiment(client)
    named = list(_search(client, experiment, run_name)) if experiment else []
    for run in named:
        if RECORDING_TAG in run.data.tags:
            source = f"{RECORDING_FILE} of run {run.info.run_id}"
            text = download_text(client, run.info.run_id, RECORDING_FILE)
            yield Recording(run.info.run_id, read_recording(text, source))
    yield from _recordings_of_old_versions(client, named)


def fetch_trajectories(run_name: str, trajectory_dir: Path, experiment: str | None = None) -> list[Path]:
    """Download the trajectories of a recording that are not in its local folder.

    A local folder `<trajectory_dir>/<run_name>` with trajectories is completed from the recording that they belong to.
    Trajectories that belong to no recording of this experiment are complete as they are. Without local trajectories the
    newest recording of the name is downloaded. Existing folders are not changed; a new one is created atomically.

    Args:
        experiment: ID of the MLflow experiment; by default that of new runs.
    Returns: the new folders.
    Raises:
        TrackingError: a download is damaged.
        StorageError: a folder cannot be created.
    """
    folder = trajectory_dir / run_name
    local = local_trajectories(folder)
    candidates = find_recordings(run_name, experiment) if None not in local.values() else iter(())
    recording = next((each for each in candidates if local.items() <= each.trajectories.items()), None)
    if recording is None:
        return []
    missing = {folder / name: run_id for name, run_id in recording.trajectories.items() if name not in local}
    for target, run_id in missing.items():
        _fetch(run_id, target)
        log.info("downloaded %s from run %s", target, run_id)
    return list(missing)


def _fetch(run_id: str, folder: Path) -> None:
    """Download a trajectory to a new folder; one that another process has created meanwhile is used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        download_files(run_id, UPLOAD_FOLDER, complete)
        write_run_id(complete, run_id)
        try:
            complete.rename(folder)
        except OSError as error:
            if read_run_id(folder) != run_id:
                raise StorageError(
                    f"could not create {folder}: {error}. Another process may record or download there; wait until it "
                    "ends, or choose another trajectory_dir"
                ) from error


def _search(client: MlflowClient, experiment: str, run_name: str) -> Iterator[Run]:
    """The runs of phase 1 with a run name, the newest first."""
    quote = '"' if "'" in run_name else "'"
    query = f"tags.`metaopt.run_name` = {quote}{run_name}{quote} and tags.`metaopt.phase` LIKE 'target%'"
    newest_first = ["attributes.start_time DESC"]
    with translate_errors(f"cannot search for runs named {shown(run_name)}", "check the name and the store"):
        token: str | None = ""
        while token is not None:
            page = client.search_runs([experiment], query, order_by=newest_first, page_token=token or None)
            yield from page
            token = page.token or None


def _recordings_of_old_versions(client: MlflowClient, named: list[Run]) -> Iterator[Recording]:
    """Recordings of metaopt 0.1, which have no list: a finished run without a parent, or a parent and its children."""
    finished = [run for run in named if run.info.status == "FINISHED" and RECORDING_TAG not in run.data.tags]
    parents = {run.info.run_id: run for run in finished if run.data.tags["metaopt.phase"] == "targets"}
    for run in finished:
        if run.info.run_id in parents:
            members = [each for each in finished if each.data.tags.get(PARENT_TAG) == run.info.run_id]
        else:
            members = [] if PARENT_TAG in run.data.tags else [run]
        trajectories = {
            f"seed_{_seed_of(each)}": each.info.run_id
            for each in members
            if is_complete(client, each.info.run_id, UPLOAD_FOLDER)
        }
        if trajectories:
            yield Recording(run.info.run_id, trajectories)


def _seed_of(run: Run) -> int:
    text = run.data.tags.get("metaopt.seed", "")
    if not text.isdecimal():
        raise TrackingError(
            f"run {run.info.run_id} has the tag metaopt.seed = {shown(text)}; expected an integer: correct the tag"
        )
    return int(text)
