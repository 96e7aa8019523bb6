"""Writes that a tracking store did not accept: a folder `unsent/<run>` keeps them until `metaopt upload` sends them."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow

from ..core.errors import FileFormatError, TrackingError
from ..core.text import shown
from ..weights.atomic import write_text
from ..weights.regular import opened
from .connection import connect
from .operations import Operation, RunIds, UploadFile, UploadFolder
from .store_errors import translate_errors, without_password
from .tags import UNSENT_TAG

UNSENT = "unsent"
"""Folder in the working directory, with one folder per run."""

_OPERATIONS = "operations.jsonl"
_SCHEMA = 1


def save_unsent(operations: Sequence[Operation], run: str, tracking_uri: str, run_ids: RunIds) -> Path:
    """Keep operations in order, with the texts and figures that they upload. Files of the training stay in their place.

    Returns: the folder.
    Raises:
        OSError: it cannot be written.
    """
    folder = Path(UNSENT, run)
    folder.mkdir(parents=True, exist_ok=True)
    header = {"schema": _SCHEMA, "tracking_uri": without_password(tracking_uri), "run_ids": dict(run_ids)}
    lines = [json.dumps(header)]
    for operation in operations:
        if isinstance(operation, UploadFile):
            source = Path(operation.path)
            kept = folder / source.parent.name / source.name
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, kept)
            operation = replace(operation, path=kept.relative_to(folder).as_posix())
        lines.append(operation.json())
    write_text(folder / _OPERATIONS, "\n".join(lines) + "\n")
    return folder


def upload_unsent(folder: Path) -> int:
    """Send the writes of a folder to the current tracking store, in order, and remove the folder.

    A folder that somebody else made does not choose the store: it would receive the user's password.

        from pathlib import Path
        from metaopt.tracking import upload_unsent

        for folder in Path("unsent").glob("*"):
            upload_unsent(folder)

    Returns: the number of writes.
    Raises:
        TrackingError: the folder has no unsent writes, or those of another store, or the store does not accept them;
            they stay in the folder.
    """
    header, operations = _read(folder)
    current, uri = without_password(mlflow.get_tracking_uri()), header["tracking_uri"]
    if uri != current:
        raise TrackingError(
            f"{folder} has the writes of a run in the store {shown(uri)}; the current store is {shown(current)}. If "
            "the first one is yours, set MLFLOW_TRACKING_URI to it"
        )
    client = connect()
    run_ids: RunIds = dict(header["run_ids"])
    with (
        _only_writes_of_metaopt(folder),
        translate_errors(f"cannot send {folder}", "try again when the store accepts writes; the folder is kept"),
    ):
        _check_paths(folder, operations)
        for operation in operations:
            if isinstance(operation, UploadFile):
                operation = replace(operation, path=str(folder / operation.path))
            operation.apply(client, run_ids)
        for run in {operation.run_id(run_ids) for operation in operations}:
            if UNSENT_TAG in client.get_run(run).data.tags:
                client.delete_tag(run, UNSENT_TAG)
    shutil.rmtree(folder)
    return len(operations)


def unsent_files() -> set[Path]:
    """Files of trainings that wait until a store accepts them: they must not be deleted.

    Raises:
        TrackingError: a folder of unsent writes is damaged.
    """
    folders = [path.parent for path in Path(UNSENT).glob(f"*/{_OPERATIONS}")]
    return {
        Path(path)
        for folder in folders
        for operation in _read(folder)[1]
        if isinstance(operation, UploadFolder)
        for path in operation.paths
    }


def _check_paths(folder: Path, operations: Sequence[Operation]) -> None:
    uploads = [operation for operation in operations if isinstance(operation, UploadFile)]
    outside = [each.path for each in uploads if not (folder / each.path).resolve().is_relative_to(folder.resolve())]
    if outside:
        raise TrackingError(f"{folder} names the file {shown(outside[0])}; expected only files inside the folder")


def _read(folder: Path) -> tuple[dict[str, Any], list[Operation]]:
    with _only_writes_of_metaopt(folder):
        with opened(folder / _OPERATIONS, "a file of unsent writes") as (file, _):
            header, *lines = file.read().decode("utf-8").splitlines()
        values = json.loads(header)
        if values["schema"] != _SCHEMA or not isinstance(values["run_ids"], dict):
            raise ValueError(f"schema {values['schema']}")
        values["tracking_uri"] = str(values["tracking_uri"])
        return values, [Operation.from_json(line) for line in lines]


@contextmanager
def _only_writes_of_metaopt(folder: Path) -> Iterator[None]:
    """Replace what a file of another form raises while it is read or applied."""
    try:
        yield
    except (FileFormatError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, TrackingError):
            raise
        raise TrackingError(
            f"{folder} has no unsent writes ({type(error).__name__}: {shown(error)}); expected a folder such as "
            f"{UNSENT}/<run ID> that a run named when it ended"
        ) from error
