"""Files of runs, back on this machine: checkpoints to resume from and trajectories to learn from.

The run's artifacts are the truth, local folders a cache of them: a project that runs from a git address loses its
folders. A folder counts once its manifest is there, and every file is checked against it.
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from ..core.errors import CheckpointError, TrackingError
from ..weights.shards import is_shard
from .connection import connect, get_run, refusals
from .manifests import MANIFEST, Entry, from_json

CHECKPOINTS = "checkpoints"
"""Artifact folder with one folder per checkpoint."""

TRAJECTORY = "trajectory"
"""Artifact folder with the snapshots of a phase-1 run."""

_SOURCE = re.compile(rf"(?:runs:/)?(?P<run>[0-9a-f]{{32}})(?:/{CHECKPOINTS}(?:/(?P<folder>[^/]+)(?:/[^/]+)?)?)?/?")

log = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """A checkpoint on this machine, and the run that it came from, where it came from one."""

    path: Path
    run_id: str | None


class TrajectoryRun(NamedTuple):
    """A finished phase-1 run whose trajectory lies in the store."""

    run_id: str
    seed: int


def resolve_checkpoint(resume_from: str, cache: Path) -> ResumePoint:
    """Find the checkpoint that a user means, fetching it where it lies in the store.

    Args:
        resume_from: a file; a run ID, for that run's last finished checkpoint; or
            `runs:/<run ID>/checkpoints/<folder>`.
        cache: folder for downloads; what it already holds and is intact is not fetched again.
    Raises:
        CheckpointError: no such file, a run without a checkpoint, or only with unfinished uploads.
        TrackingError: no such run, or a download that is not what was uploaded.
    """
    if Path(resume_from).is_file():
        return ResumePoint(Path(resume_from), None)
    source = _SOURCE.fullmatch(resume_from)
    if source is None:
        raise CheckpointError(
            f"no checkpoint at {resume_from!r}; expected an existing file, a run ID (32 hexadecimal digits) or "
            "runs:/<run ID>[/checkpoints/<folder>]"
        )
    client, run_id = connect(), source["run"]
    get_run(client, run_id)
    name = source["folder"] or _last_finished(client, run_id)
    files = download_files(run_id, f"{CHECKPOINTS}/{name}", cache / run_id / name)
    checkpoints = [path for path in files if path.suffix == ".safetensors" and not is_shard(path)]
    if len(checkpoints) != 1:
        raise CheckpointError(
            f"{CHECKPOINTS}/{name} of run {run_id} holds {len(checkpoints)} safetensors files; expected one. Name "
            "another folder of that run as runs:/<run ID>/checkpoints/<folder>"
        )
    return ResumePoint(checkpoints[0], run_id)


def download_files(run_id: str, folder: str, destination: Path) -> list[Path]:
    """Fetch a folder of a run, each file checked before it takes its place; intact files are kept as they are.

    Raises:
        TrackingError: no such folder, an unfinished upload, a manifest that is not one, or a file that is not
            what its manifest states.
    """
    client = connect()
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=destination) as temporary:
        manifest = _fetch(client, run_id, f"{folder}/{MANIFEST}", Path(temporary))
        entries = from_json(manifest.read_text(encoding="utf-8"), f"{folder}/{MANIFEST} of run {run_id}")
        for name, entry in entries.items():
            if not _is_intact(destination / name, entry):
                fetched = _fetch(client, run_id, f"{folder}/{name}", Path(temporary))
                _verify(fetched, entry, f"{folder}/{name} of run {run_id}")
                fetched.replace(destination / name)
    return [destination / name for name in entries]


def find_trajectory_runs(run_name: str) -> list[TrajectoryRun]:
    """The finished phase-1 runs of a name whose trajectory is in the store; of each random seed the newest."""
    client = connect()
    newest: dict[int, TrajectoryRun] = {}
    for run in _search(client, run_name):
        seed = _seed_of(run)
        if seed not in newest and _is_finished(client, run.info.run_id, TRAJECTORY):
            newest[seed] = TrajectoryRun(run.info.run_id, seed)
    return [newest[seed] for seed in sorted(newest)]


def fetch_trajectories(run_name: str, trajectory_dir: Path) -> list[Path]:
    """Download the trajectories of a name that are not on this machine; returns the folders that are new.

    A folder `<trajectory_dir>/<run_name>/seed_<seed>` that exists is left alone; a new one appears whole.

    Raises:
        TrackingError: a download that is not what was uploaded.
    """
    fetched = []
    for run in find_trajectory_runs(run_name):
        folder = trajectory_dir / run_name / f"seed_{run.seed}"
        if folder.exists():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            download_files(run.run_id, TRAJECTORY, Path(temporary) / "whole")
            (Path(temporary) / "whole").replace(folder)
        log.info("fetched %s from run %s", folder, run.run_id)
        fetched.append(folder)
    return fetched


def _last_finished(client: MlflowClient, run_id: str) -> str:
    with refusals(f"cannot list the checkpoints of run {run_id}", "check the store's artifact root"):
        names = [Path(item.path).name for item in client.list_artifacts(run_id, CHECKPOINTS) if item.is_dir]
    if not names:
        raise CheckpointError(
            f"run {run_id} has no checkpoint; expected an artifact folder {CHECKPOINTS}/. Name a run of "
            "train_optimizer that got that far (a store whose folder was moved looks empty, too)"
        )
    for name in sorted(names, key=lambda name: (len(name), name), reverse=True):  # epoch_9999 comes before epoch_10000
        if _is_finished(client, run_id, f"{CHECKPOINTS}/{name}"):
            return name
        log.warning("run %s: the upload of %s/%s is unfinished; trying the one before it", run_id, CHECKPOINTS, name)
    raise CheckpointError(
        f"run {run_id} has only unfinished checkpoint uploads ({', '.join(sorted(names))}); expected one with a "
        f"{MANIFEST}. Resume from its local checkpoint file, or start anew"
    )


def _is_finished(client: MlflowClient, run_id: str, folder: str) -> bool:
    with refusals(f"cannot list {folder} of run {run_id}", "check the store's artifact root"):
        return any(item.path == f"{folder}/{MANIFEST}" for item in client.list_artifacts(run_id, folder))


def _fetch(client: MlflowClient, run_id: str, path: str, destination: Path) -> Path:
    way_out = "without a manifest an upload was aborted: use another one, or upload again"
    with refusals(f"cannot fetch {path} of run {run_id}", way_out):
        return Path(client.download_artifacts(run_id, path, str(destination)))


def _is_intact(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and Entry.of(path) == entry


def _verify(path: Path, entry: Entry, where: str) -> None:
    found = Entry.of(path)
    if found != entry:
        raise TrackingError(
            f"{where} is damaged: {found.size:,} bytes with sha256 {found.sha256[:12]}…, its manifest states "
            f"{entry.size:,} bytes with {entry.sha256[:12]}…. Try again; if it stays so, use another or upload again"
        )


def _search(client: MlflowClient, run_name: str) -> Iterator[Run]:
    quote = '"' if "'" in run_name else "'"
    query = (
        f"tags.`metaopt.run_name` = {quote}{run_name}{quote} and tags.`metaopt.phase` = 'target' "
        "and attributes.status = 'FINISHED'"
    )
    newest_first = ["attributes.start_time DESC"]
    with refusals(f"cannot search for runs named {run_name!r}", "check the name and the store"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        token: str | None = ""
        while token is not None:
            page = client.search_runs(experiments, query, order_by=newest_first, page_token=token or None)
            yield from page
            token = page.token or None


def _seed_of(run: Run) -> int:
    stated = run.data.tags.get("metaopt.seed", "")
    if not stated.isdecimal():
        raise TrackingError(
            f"run {run.info.run_id} has the tag metaopt.seed = {stated!r}; expected a whole number: correct the tag"
        )
    return int(stated)
