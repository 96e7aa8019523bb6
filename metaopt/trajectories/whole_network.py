"""All weights of a recorded network: a snapshot, with the frozen weights that are stored once beside all snapshots."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import FileFormatError
from ..core.text import shown
from ..weights.files import kind_of, read_tensors
from .recorder import FROZEN, SNAPSHOT, snapshot_files
from .trajectory import Trajectory

_KINDS = ("weights", SNAPSHOT)


def read_whole_network(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all weights and buffers of a network.

        from pathlib import Path
        from metaopt.trajectories import read_whole_network

        weights, facts = read_whole_network(Path("trajectories/digits/seed_0"))

    Args:
        path: a snapshot, a file of weights, such as generated ones, or a trajectory, for its last snapshot.
    Returns: the tensors by name, and the facts of the file.
    Raises:
        FileFormatError: a file is damaged or of another kind, or the frozen weights belong to another run.
        TrajectoryError: the folder holds no complete trajectory.
    """
    if path.is_dir():
        path = Trajectory.open(path).snapshots[-1].path
    kind = kind_of(path)
    if kind not in _KINDS:
        raise FileFormatError(f"{path} is a {shown(kind)} file; expected weights or a snapshot")
    tensors, facts = read_tensors(path, kind)
    beside = path.with_name(f"{FROZEN}.safetensors")
    if kind == SNAPSHOT and beside.exists():
        frozen, of = read_tensors(beside, FROZEN)
        if of["run"] != facts["run"]:
            raise FileFormatError(f"{beside} belongs to another run than {path.name}; copy all files again")
        tensors |= frozen
    return tensors, facts


def is_trajectory(path: Path) -> bool:
    """Whether a folder holds snapshots."""
    return bool(snapshot_files(path))
