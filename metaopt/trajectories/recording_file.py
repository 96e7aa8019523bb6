"""What a recording consists of: the run that recorded each trajectory of a run name.

A run name does not say which trajectories belong together, because it can be used again. So each folder of a trajectory
has a file with the ID of its run, and the run that made a recording has a list of its trajectories with these IDs.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import FileFormatError
from ..core.text import reason_of, shown
from ..weights.atomic import write_text
from ..weights.regular import read_text

RUN_FILE = "run.json"
"""File in the folder of a trajectory: the ID of the run that recorded it."""

RECORDING_FILE = "recording.json"
"""Artifact of the run that made a recording: its trajectories and their runs."""

RECORDING_TAG = "metaopt.recording"
"""Tag of the run that made a recording: the number of its trajectories."""

UPLOAD_FOLDER = "trajectory"
"""Artifact folder with the files of a trajectory, in the run that recorded it."""

_SCHEMA = 1
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER = re.compile(r"seed_\d+")


def write_run_id(folder: Path, run_id: str) -> None:
    """Note in the folder of a trajectory which run recorded it.

    Raises:
        StorageError: the disk is full or not writable.
    """
    write_text(folder / RUN_FILE, json.dumps({"schema": _SCHEMA, "run_id": run_id}) + "\n")


def read_run_id(folder: Path) -> str | None:
    """The ID of the run that recorded a trajectory; None if it is unknown, as for trajectories of metaopt 0.1."""
    try:
        run_id = json.loads(read_text(folder / RUN_FILE, "the ID of a run"))["run_id"]
    except (ValueError, KeyError, TypeError, RecursionError):  # a FileFormatError is a ValueError
        return None
    return run_id if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) else None


def local_trajectories(folder: Path) -> dict[str, str | None]:
    """The trajectories in the folder of a run name, and the ID of the run of each; None where it is unknown."""
    return {path.name: read_run_id(path) for path in sorted(folder.glob("seed_*")) if path.is_dir()}


def recording_json(trajectories: Mapping[str, str]) -> str:
    """The text of a recording: the run ID of each trajectory by the name of its folder."""
    return json.dumps({"schema": _SCHEMA, "trajectories": dict(trajectories)}, indent=2) + "\n"


def read_recording(text: str, source: str) -> dict[str, str]:
    """Read an untrusted recording: the run ID of each trajectory by the name of its folder.

    Args:
        source: name of the recording in messages.
    Raises:
        FileFormatError: the text is not a recording.
    """
    try:
        document: Any = json.loads(text)
        schema, trajectories = document["schema"], dict(document["trajectories"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(
            f"{source} is no recording ({reason_of(error)}); expected trajectories and their runs: record again"
        ) from error
    valid = (_FOLDER.fullmatch(str(name)) and _RUN_ID.fullmatch(str(run)) for name, run in trajectories.items())
    if schema != _SCHEMA or not all(valid):
        raise FileFormatError(
            f"{source} has schema {shown(schema)} and trajectories {shown(list(trajectories))}; expected schema "
            f"{_SCHEMA}, folders such as seed_0 and IDs of runs: record again"
        )
    return trajectories
