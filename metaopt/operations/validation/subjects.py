"""What is validated: trajectories, checkpoints, exported models and files of conversations, found by their paths.

This module does not import torch.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.config import Config, option, trust_option
from ...core.errors import FileFormatError, InvalidConfig
from ...core.registry import suggest
from ...core.text import shown
from ...weights.header import read_header
from ...weights.shards import is_shard

if TYPE_CHECKING:
    from ...trajectories import Trajectory
    from .fingerprints import Fingerprint
    from .repeated_lines import LineKeys

LINES = (".jsonl", ".ndjson")
"""Endings of files of conversations."""

_SUFFIX = ".safetensors"
_SNAPSHOT, _FROZEN, _TASK = "step_", "frozen.safetensors", "task.json"
_KIND_OF_FILE = {"checkpoint": "checkpoint", "optimizer": "model", "policy": "model", "weights": "model"}


class Settings(Config):
    """What checks need beside the files."""

    trajectory_dir: Path = option(
        default=Path("trajectories"),
        help="Folder of all trajectories: for run names, and for those that a checkpoint names.",
    )
    data_dir: Path | None = option(default=None, help="Folder of the task's data, if it has moved.")
    tokenizer: str = option(
        default="bytes",
        help="Tokenizer of packed examples: bytes, a SentencePiece model (.model) or a tokenizer.json of Hugging Face.",
    )
    trust_config: bool = trust_option()


@dataclass(eq=False)
class Subject:
    """Something to validate.

    Attributes:
        kind: one of `KINDS`.
        path: the file, or the folder of a trajectory.
        settings: what checks need beside the files.
        earlier: the subjects of this kind before it, with which it is compared.
        against: the subjects that it must not have anything in common with, of any kind.
    """

    kind: str
    path: Path
    settings: Settings = field(default_factory=Settings)
    earlier: Sequence["Subject"] = ()
    against: Sequence["Subject"] = ()

    @property
    def name(self) -> str:
        """The path, as a message shows it."""
        return str(self.path)

    @cached_property
    def files(self) -> list[Path]:
        """Its safetensors files in natural order, without shards; of conversations, the file."""
        if self.kind != "trajectory":
            return [self.path]
        return [*self.snapshots, *(path for path in [self.path / _FROZEN] if os.path.lexists(path))]

    @cached_property
    def snapshots(self) -> list[Path]:
        """The snapshots of a trajectory, by their names."""
        found = self.path.glob(f"{_SNAPSHOT}*{_SUFFIX}")
        return sorted(found, key=lambda path: (len(path.name), path.name))

    @cached_property
    def trajectory(self) -> "Trajectory":
        """The opened trajectory.

        Raises:
            TrajectoryError, FileFormatError: it is incomplete or damaged.
        """
        from ...trajectories import Trajectory

        return Trajectory.open(self.path)

    @cached_property
    def fingerprint(self) -> "Fingerprint":
        """What is compared of a trajectory.

        Raises:
            TrajectoryError, FileFormatError: it is incomplete or damaged.
        """
        from .fingerprints import fingerprint_of

        return fingerprint_of(self.trajectory)

    @cached_property
    def line_keys(self) -> "LineKeys":
        """What is compared of a file of conversations.

        Raises:
            FileFormatError: it cannot be opened.
        """
        from .repeated_lines import line_keys

        return line_keys(self.path)

    def of_kind(self, subjects: Iterable["Subject"]) -> list["Subject"]:
        """Those of some subjects that have the same kind."""
        return [each for each in subjects if each.kind == self.kind]


def find_subjects(paths: Iterable[str | Path], settings: Settings) -> list[Subject]:
    """What some paths contain, each subject once, in the order of the paths.

    Args:
        paths: files; folders, with all that is in them; or run names.
    Raises:
        InvalidConfig: a path does not exist, or contains nothing that can be validated.
    """
    found: dict[Path, Subject] = {}
    for path in paths:
        place = _place(path, settings)
        subjects = list(_walk(place)) if place.is_dir() else [(_kind_of(place), place)]
        if not subjects:
            raise InvalidConfig(
                f"nothing to validate in {place}; expected snapshots, other safetensors files, or files of "
                f"conversations ({', '.join(LINES)})"
            )
        for kind, each in subjects:
            found.setdefault(each.absolute(), Subject(kind, each, settings))
    return list(found.values())


def _place(path: str | Path, settings: Settings) -> Path:
    """A path, or the folder of a run name."""
    place = Path(path)
    if os.path.lexists(place):
        return place
    folder = settings.trajectory_dir / place
    if not place.is_absolute() and folder.is_dir():
        return folder
    names = sorted(each.name for each in place.parent.iterdir()) if place.parent.is_dir() else []
    near = suggest(place.name, names) if 0 < len(names) < 100 else f"there is no such path, and no run name in {folder}"
    raise InvalidConfig(f"nothing to validate at {shown(str(path))}: {near}")


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Kind and path of each subject in a folder and its subfolders; hidden ones and links to folders are skipped."""
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place, visible = Path(root), sorted(name for name in files if not name.startswith("."))
        if _is_trajectory(visible):
            yield "trajectory", place
            visible = [name for name in visible if not name.startswith(_SNAPSHOT) and name != _FROZEN]
        for name in visible:
            if name.endswith(LINES):
                yield "conversations", place / name
            elif name.endswith(_SUFFIX) and not is_shard(place / name):
                yield _kind_of(place / name), place / name


def _is_trajectory(names: Sequence[str]) -> bool:
    """Whether these files are those of a trajectory, some of which may be missing."""
    snapshots = any(name.startswith(_SNAPSHOT) and name.endswith(_SUFFIX) for name in names)
    return snapshots or _TASK in names or _FROZEN in names


def _kind_of(path: Path) -> str:
    """The kind of a file. A file that cannot be read is taken for a checkpoint, whose headers are checked.

    Raises:
        InvalidConfig: it is a part of something else.
    """
    if path.name.endswith(LINES):
        return "conversations"
    try:
        kind = read_header(path).kind
    except FileFormatError:
        return "checkpoint"
    if kind not in _KIND_OF_FILE:
        whole = f"the file that lists it ({path.parent})" if is_shard(path) else f"its folder ({path.parent})"
        raise InvalidConfig(f"{path} is a {shown(kind)} file, a part of something; validate {whole}")
    return _KIND_OF_FILE[kind]
