"""Downloads the artifacts of runs, such as checkpoints to resume from.

Artifacts are the primary copy and local folders a cache, because `mlflow run` from a git address loses its folders. An
artifact folder is complete when it has a manifest, and every downloaded file is verified with it.
"""

import logging
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from ..core.errors import CheckpointError, TrackingError
from ..core.text import shown
from ..weights.shards import is_shard
from .connection import connect, get_run, store_exists
from .manifests import MANIFEST, ManifestEntry, from_json
from .store_errors import MISSING, translate_errors

CHECKPOINTS = "checkpoints"
"""Artifact folder with one folder per checkpoint."""

_SOURCE = re.compile(rf"(?:runs:/)?(?P<run>[0-9a-f]{{32}})(?:/{CHECKPOINTS}(?:/(?P<folder>[^/]+)(?:/[^/]+)?)?)?/?")

log = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """A local checkpoint, and the ID of its run; None for a file that the user named."""

    path: Path
    run_id: str | None


def resolve_checkpoint(resume_from: str, cache: Path) -> ResumePoint:
    """Find a checkpoint, and download it if it is in the store.

    Args:
        resume_from: a file; a run ID, for the last complete checkpoint of the run; or
            `runs:/<run ID>/checkpoints/<folder>`.
        cache: folder for downloads; intact files in it are not downloaded again.
    Raises:
        CheckpointError: the file does not exist, or the run has no complete checkpoint.
        TrackingError: the run does not exist, or a download is damaged.
    """
    if Path(resume_from).is_file():
        return ResumePoint(Path(resume_from), None)
    source = _SOURCE.fullmatch(resume_from)
    if source is None:
        raise CheckpointError(
            f"no checkpoint at {shown(resume_from)}; expected an existing file, a run ID (32 hexadecimal digits) or "
            "runs:/<run ID>[/checkpoints/<folder>]"
        )
    client, run_id = connect(), source["run"]
    get_run(client, run_id)
    name = source["folder"] or _last_complete(client, run_id)
    files = download_files(run_id, f"{CHECKPOINTS}/{name}", cache / run_id / name)
    checkpoints = [path for path in files if path.suffix == ".safetensors" and not is_shard(path)]
    if len(checkpoints) != 1:
        raise CheckpointError(
            f"{CHECKPOINTS}/{name} of run {run_id} has {len(checkpoints)} safetensors files; expected one. Choose "
            "another folder of that run with runs:/<run ID>/checkpoints/<folder>"
        )
    os.utime(checkpoints[0])  # says when it was used: `metaopt prune` removes old downloads
    return ResumePoint(checkpoints[0], run_id)


def has_checkpoint(run_id: str, name: str) -> bool:
    """Whether the store has a complete checkpoint of a run that is not deleted.

    Args:
        name: name of its artifact folder, such as `epoch_0019`.
    Raises:
        TrackingError: the store does not respond.
    """
    if not store_exists():
        return False
    with translate_errors(f"cannot read run {run_id}", "nothing is deleted until the store responds"):
        client = connect()
        try:
            is_deleted = client.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
        except MlflowException as error:
            if error.error_code == MISSING:
                return False
            raise
    return not is_deleted and is_complete(client, run_id, f"{CHECKPOINTS}/{name}")


def download_files(run_id: str, folder: str, destination: Path) -> list[Path]:
    """Download a folder of a run. Files are verified before they replace local ones; intact local files are kept.

    Raises:
        TrackingError: the folder does not exist, its upload is incomplete, or its manifest or a file is damaged.
    """
    client = connect()
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=destination) as temporary:
        manifest = _download(client, run_id, f"{folder}/{MANIFEST}", Path(temporary))
        entries = from_json(manifest.read_text(encoding="utf-8"), f"{folder}/{MANIFEST} of run {run_id}")
        for name, entry in entries.items():
            if not _is_intact(destination / name, entry):
                downloaded = _download(client, run_id, f"{folder}/{name}", Path(temporary))
                _verify(downloaded, entry, f"{folder}/{name} of run {run_id}")
                downloaded.replace(destination / name)
    return [destination / name for name in entries]


def download_artifact(uri: str, destination: Path) -> Path:
    """Download a file or a folder of a run or of a registered model, and return its local path.

    Args:
        uri: `runs:/<run ID>/<path>`, `models:/<name>/<version>` or `models:/<name>@<alias>`.
    Raises:
        TrackingError: it does not exist or cannot be downloaded.
    """
    remedy = (
        "find it in `mlflow ui`; expected runs:/<run ID>/<path>, models:/<name>/<version> or models:/<name>@<alias>"
    )
    with translate_errors(f"cannot download {shown(uri)}", remedy):
        connect()
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(destination)))


def download_text(client: MlflowClient, run_id: str, path: str) -> str:
    """Download an artifact and return its text.

    Raises:
        TrackingError: the artifact does not exist or cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return _download(client, run_id, path, Path(temporary)).read_text(encoding="utf-8")


def is_complete(client: MlflowClient, run_id: str, folder: str) -> bool:
    """Whether a folder of a run has a manifest, which is uploaded last."""
    with translate_errors(f"cannot list {folder} of run {run_id}", "check the store's artifact root"):
        return any(item.path == f"{folder}/{MANIFEST}" for item in client.list_artifacts(run_id, folder))


def _last_complete(client: MlflowClient, run_id: str) -> str:
    with translate_errors(f"cannot list the checkpoints of run {run_id}", "check the store's artifact root"):
        names = [Path(item.path).name for item in client.list_artifacts(run_id, CHECKPOINTS) if item.is_dir]
    if not names:
        raise CheckpointError(
            f"run {run_id} has no checkpoint; expected an artifact folder {CHECKPOINTS}/. Choose a run of "
            "train-optimizer that saved one (a store whose folder was moved also appears empty)"
        )
    for name in sorted(names, key=lambda name: (len(name), name), reverse=True):  # epoch_9999 comes before epoch_10000
        if is_complete(client, run_id, f"{CHECKPOINTS}/{name}"):
            return name
        log.warning("run %s: the upload of %s/%s is incomplete; trying the previous one", run_id, CHECKPOINTS, name)
    raise CheckpointError(
        f"run {run_id} has only incomplete checkpoint uploads ({', '.join(sorted(names))}); expected one with a "
        f"{MANIFEST}. Resume from its local checkpoint file, or start a new training"
    )


def _download(client: MlflowClient, run_id: str, path: str, destination: Path) -> Path:
    remedy = "a folder without a manifest is an aborted upload: use another one, or upload again"
    with translate_errors(f"cannot download {path} of run {run_id}", remedy):
        return Path(client.download_artifacts(run_id, path, str(destination)))


def _is_intact(path: Path, entry: ManifestEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and ManifestEntry.of(path) == entry


def _verify(path: Path, entry: ManifestEntry, where: str) -> None:
    found = ManifestEntry.of(path)
    if found != entry:
        raise TrackingError(
            f"{where} is damaged: {found.size:,} bytes with sha256 {found.sha256[:12]}…, expected "
            f"{entry.size:,} bytes with {entry.sha256[:12]}…. Try again; "
            "if that fails, use another file or upload it again"
        )
