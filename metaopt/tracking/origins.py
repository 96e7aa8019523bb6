"""Origins of registered versions, which checkpoints are registered, and the origins that runs have as artifacts."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from ..core.errors import FileFormatError, MetaoptError
from ..trajectories.ledger_entry import LedgerEntry, read_entry, sidecar_path
from ..trajectories.origin import CHECKPOINT, MODEL, ORIGIN_FILE, Origin, Parent, read_origin
from ..trajectories.recording_file import UPLOAD_FOLDER
from .artifacts import CHECKPOINTS
from .connection import connect, store_exists
from .store_errors import translate_errors
from .tags import ORIGIN_TAG, PHASE_TAG
from .versions import is_registered, registered_version

_PAGE = 1000  # versions of one answer [count]
_FIND = "find it in `mlflow ui`"


def origin_tag(origin: Origin) -> dict[str, str]:
    """The tag of a registered version that states its origin."""
    return {ORIGIN_TAG: json.dumps(origin.to_mapping(), sort_keys=True)}


def registered_checkpoints() -> tuple[dict[str, str], dict[str, str]]:
    """Which checkpoints became registered versions.

    Returns: the address of the version by the content digest of its checkpoint; and the same by the ID of its run, for
        versions that do not name their checkpoint, because an older metaopt registered them.
    Raises:
        TrackingError: the store does not respond.
    """
    by_digest: dict[str, str] = {}
    by_run: dict[str, str] = {}
    for version in _all_versions():
        address = f"models:/{version.name}/{version.version}"
        origin = _origin(version)
        digests = [parent.digest for parent in origin.parents if parent.kind == CHECKPOINT] if origin else []
        by_digest.update(dict.fromkeys(digests, address))
        if not digests and version.run_id:
            by_run[version.run_id] = address
    return by_digest, by_run


def version_origin(source: str) -> tuple[str, str | None, Origin | None]:
    """The address by number, the run and the origin of a registered version; no origin if it states none.

    Args:
        source: `models:/<name>/<version>` or `models:/<name>@<alias>`.
    Raises:
        TrackingError: the version does not exist.
    """
    name, number = registered_version(source)
    with translate_errors(f"cannot find {source}", _FIND):
        version = connect().get_model_version(name, str(number))
    return f"models:/{name}/{number}", version.run_id, _origin(version)


def registered_parent(source: str) -> Parent | None:
    """A registered version, by its number, as the parent of what is made with it; None for other sources.

    Raises:
        TrackingError: the version does not exist.
    """
    if not is_registered(source):
        return None
    address, run_id, _ = version_origin(source)
    return Parent(MODEL, address, "", run_id)


def run_phase(run_id: str) -> str:
    """The phase of a run, such as `optimizer`; empty for runs of other programs.

    Raises:
        TrackingError: the run does not exist.
    """
    with translate_errors(f"cannot read run {run_id}", _FIND):
        return str(connect().get_run(run_id).data.tags.get(PHASE_TAG, ""))


def trajectory_origin(run_id: str) -> Origin | None:
    """The origin of the trajectory that a run has uploaded; None if it has none that can be read."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with translate_errors(f"cannot read the origin of run {run_id}", _FIND):
                path = connect().download_artifacts(run_id, f"{UPLOAD_FOLDER}/{ORIGIN_FILE}", folder)
            return read_origin(Path(path).parent)
        except (MetaoptError, OSError):
            return None


def checkpoint_entries(run_id: str) -> list[LedgerEntry]:
    """The ledger entries of the checkpoints that a run has uploaded, the last one first."""
    client = connect()
    with tempfile.TemporaryDirectory() as folder, translate_errors(f"cannot list run {run_id}", _FIND):
        names = [
            item.path
            for each in client.list_artifacts(run_id, CHECKPOINTS)
            for item in client.list_artifacts(run_id, each.path)
            if item.path.endswith(sidecar_path(Path(".safetensors")).name)
        ]
        found = [each for name in names if (each := _downloaded(client, run_id, name, Path(folder))) is not None]
    return sorted(found, key=lambda each: each.facts.step, reverse=True)


def _downloaded(client: MlflowClient, run_id: str, name: str, folder: Path) -> LedgerEntry | None:
    try:
        path = Path(client.download_artifacts(run_id, name, str(folder)))
        return read_entry(path.with_suffix(""))
    except FileFormatError:
        return None


def _all_versions() -> Iterator[ModelVersion]:
    if not store_exists():
        return
    token: str | None = ""
    with translate_errors("cannot list the registered versions", "nothing is deleted until the store responds"):
        client = connect()
        while token is not None:
            page: Sequence[ModelVersion] = client.search_model_versions(max_results=_PAGE, page_token=token or None)
            yield from page
            token = getattr(page, "token", None) or None


def _origin(version: ModelVersion) -> Origin | None:
    text = version.tags.get(ORIGIN_TAG)
    if text is None:
        return None
    try:
        return Origin.from_mapping(json.loads(text), f"the tag {ORIGIN_TAG} of {version.name} {version.version}")
    except (ValueError, RecursionError):  # a FileFormatError is a ValueError
        return None
