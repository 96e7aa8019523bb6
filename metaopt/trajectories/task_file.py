"""`task.json`: the facts of a trajectory's task and its last step, sealed with a sha256 like the other files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import FileFormatError
from ..weights.facts import COUNT, first_violation
from .sealed_json import read_sealed, write_sealed

TASK_FILE = "task.json"
"""Name of the file in a trajectory folder that describes the task."""

LAST_STEP = "last_step"
"""Its fact with the step of the last snapshot of a finished recording [steps]."""

_UNSEALED = {"kind", "topology", "baseline_loss", "target_loss", "metrics", "loss_change_std"}  # of version 0.1.0


def write_task(folder: Path, facts: Mapping[str, Any], last_step: int | None = None) -> None:
    """Write the facts of a task beside the snapshots.

    Args:
        facts: values that JSON can represent.
        last_step: step of the last snapshot of a finished recording, by which readers notice that it was removed
            [steps].
    Raises:
        StorageError: the disk is full or not writable.
    """
    written = dict(facts) if last_step is None else {**facts, LAST_STEP: last_step}
    write_sealed(folder / TASK_FILE, written)


def read_task(path: Path) -> dict[str, Any]:
    """Read the facts of a task, without the digest.

    Returns: the facts, with `LAST_STEP` if the recording has finished; files of older versions lack it.
    Raises:
        FileFormatError: the file is damaged, or is no JSON object.
    """
    facts = read_sealed(path, _UNSEALED)
    if violation := first_violation(facts, {LAST_STEP: COUNT.optional}):
        raise FileFormatError(f"{path} cannot be read: {violation}; copy the file again, or record the run again")
    return facts
