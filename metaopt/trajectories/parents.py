"""Files as parents: what a training starts from or uses, as the origin of its result names it.

A checkpoint and a trajectory state their own origins. Smaller files that are made of them, such as a policy or
generated weights, state in their facts what they were made from, so that no link is lost with them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import MetaoptError
from ..weights.header import read_header
from .checkpoint import KIND as CHECKPOINT_FILE
from .ledger_entry import checkpoint_parent
from .origin import CHECKPOINT, TRAJECTORY, WEIGHTS, Parent, parent_values, parents_from
from .recorder import SNAPSHOT
from .recording_file import read_run_id
from .trajectory import Trajectory

_MADE_FROM = "made_from"
_WEIGHTS_FILE = "weights"


def trajectory_parent(trajectory: Trajectory) -> Parent:
    """A trajectory as the parent of what is made from it."""
    return Parent(TRAJECTORY, trajectory.name, trajectory.digest, read_run_id(trajectory.folder))


def made_from(parents: Sequence[Parent]) -> dict[str, Any]:
    """The fact of a file that states what it was made from; `file_parents` reads it."""
    return {_MADE_FROM: parent_values(parents)}


def file_parents(path: Path) -> tuple[Parent, ...]:
    """The parents of what is made from a file of metaopt.

        from pathlib import Path
        from metaopt.trajectories.parents import file_parents

        file_parents(Path("trajectories/digits/seed_0/step_00000000.safetensors"))

    Returns: a checkpoint; the trajectory of a snapshot; or what a smaller file states about itself. A file that states
        nothing is a parent with its own name: weights begin a lineage, and an optimizer or a policy is a missing link.
    Raises:
        FileFormatError: the file is damaged, or was not written by metaopt.
    """
    header = read_header(path)
    if header.kind == CHECKPOINT_FILE:
        return (checkpoint_parent(path, header.sha256),)
    if header.kind == SNAPSHOT:
        return (_of_snapshot(path, header.sha256),)
    if _MADE_FROM in header.facts:
        return parents_from(header.facts[_MADE_FROM], path)
    kind = WEIGHTS if header.kind == _WEIGHTS_FILE else CHECKPOINT
    return (Parent(kind, path.name, header.sha256),)


def _of_snapshot(path: Path, content: str) -> Parent:
    try:
        return trajectory_parent(Trajectory.open(path.parent))
    except MetaoptError:  # a snapshot that was copied alone
        return Parent(TRAJECTORY, path.name, content)
