"""Reads a lineage: from files in the local folders first, and from the tracking store for what is not there."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..core.config import Config, option
from ..core.errors import FileFormatError, InvalidConfig, LineageError, MetaoptError
from ..core.text import counted, shown
from ..trajectories.ledger_entry import LedgerEntry, entry_of, read_entry
from ..trajectories.origin import CHECKPOINT, DATA, MODEL, TRAJECTORY, WEIGHTS, Origin, Parent, read_origin
from ..trajectories.recording_file import read_run_id
from ..weights.atomic import replacing
from ..weights.header import read_header
from .ledger import scan
from .lineage import Lineage, Node
from .validation.records import passed_checks

DRAWINGS = Path("reports/lineage")
"""Folder of the drawings, unless another place is given."""

_RUN_ID = re.compile(r"(?:runs:/)?([0-9a-f]{32})")


class LineageConfig(Config):
    """Settings of `metaopt lineage`."""

    model: str | None = option(
        default=None,
        help="What to explain: models:/<name>/<version>, models:/<name>@<alias>, a run ID, a checkpoint or the folder "
        "of a trajectory.",
    )
    check: bool = option(default=False, help="Fail if a link is missing, and name each.")
    output: Path | None = option(
        default=None, help="Drawing, without its ending: .png and .svg are written; by default in reports/lineage/."
    )
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of all trajectories.")


@dataclass(frozen=True)
class DrawnLineage:
    """A lineage, and the files of its drawing."""

    lineage: Lineage
    drawings: list[Path]


def show_lineage(config: LineageConfig) -> DrawnLineage:
    """Read the lineage of a model, a run, a checkpoint or a trajectory, and draw it.

        from metaopt.operations.lineage_files import LineageConfig, show_lineage

        shown = show_lineage(LineageConfig(model="trajectories/digits/seed_0"))
        print(shown.lineage.tree())

    Raises:
        InvalidConfig: nothing is given.
        LineageError: it does not exist; or a link is missing, with `check`.
        TrackingError: the tracking store cannot be read.
        StorageError: the drawing cannot be written.
    """
    if config.model is None:
        raise InvalidConfig(
            "nothing is given; expected models:/<name>/<version>, models:/<name>@<alias>, a run ID, a checkpoint or "
            "the folder of a trajectory"
        )
    lineage = read_lineage(config.model, config.checkpoint_dir, config.trajectory_dir)
    if config.check and (problems := lineage.problems()):
        raise LineageError(
            f"the lineage of {config.model} lacks {counted(len(problems), 'link')}: {'; '.join(problems)}. Bring the "
            "files or the runs back, or make it again from what is there"
        )
    place = config.output or DRAWINGS / _plain(lineage.nodes[lineage.root].name)
    return DrawnLineage(lineage, _draw(lineage, place.with_suffix("") if _has_ending(place) else place))


def read_lineage(source: str, checkpoint_dir: Path, trajectory_dir: Path) -> Lineage:
    """Read a lineage.

    Args:
        source: `models:/<name>/<version>`, `models:/<name>@<alias>`, a run ID, a checkpoint or the folder of
            a trajectory.
    Raises:
        LineageError: there is no such thing.
        FileFormatError: the file or the folder is damaged.
        TrackingError: the version or the run does not exist, or the store does not respond.
    """
    reader = _Reader(checkpoint_dir, trajectory_dir)
    node, parents = reader.start(source)
    nodes: dict[str, Node] = {}
    waiting = [(node, parents)]
    while waiting:
        node, parents = waiting.pop(0)
        found = [reader.find(parent) for parent in parents]
        nodes[node.key] = replace(node, parents=tuple(each.key for each, _ in found))
        waiting += [(each, further) for each, further in found if each.key not in nodes]
    return Lineage(next(iter(nodes)), nodes)


_Found = tuple[Node, tuple[Parent, ...]]
"""A node, and what it names as its parents."""


class _Reader:
    def __init__(self, checkpoint_dir: Path, trajectory_dir: Path) -> None:
        self._checkpoints, self._trajectories = checkpoint_dir, trajectory_dir

    @cached_property
    def _local(self) -> dict[str, Path]:
        """The local checkpoints by the digest of their contents."""
        found = scan(self._checkpoints).records
        return {each.content_sha256: self._checkpoints / each.path for each in found}

    def start(self, source: str) -> _Found:
        """The node of what the user named."""
        path, run = Path(source), _RUN_ID.fullmatch(source)
        if source.startswith("models:/"):
            return _version(source)
        if path.is_dir():
            return _trajectory(Parent(TRAJECTORY, _name_of(path), _digest_of(path), read_run_id(path)), path)
        if path.is_file():
            return _checkpoint(path)
        if run is not None:
            return self._of_run(run[1])
        raise LineageError(
            f"nothing at {shown(source)}; expected models:/<name>/<version>, models:/<name>@<alias>, a run ID (32 "
            "hexadecimal digits), a checkpoint or the folder of a trajectory"
        )

    def find(self, parent: Parent) -> _Found:
        """The node of a parent; with the reason, if it cannot be found."""
        finders: dict[str, Callable[[Parent], _Found | str]] = {
            DATA: _beginning,
            WEIGHTS: _beginning,
            TRAJECTORY: self._find_trajectory,
            CHECKPOINT: self._find_checkpoint,
            MODEL: lambda each: _version(each.name),
        }
        try:
            found = finders[parent.kind](parent)
        except MetaoptError as error:
            found = str(error)
        return (Node(parent.kind, parent.name, parent.digest, missing=found), ()) if isinstance(found, str) else found

    def _find_trajectory(self, parent: Parent) -> _Found | str:
        folder = self._trajectories / parent.name
        is_there = folder.is_dir()
        if is_there and _digest_of(folder) == parent.digest:
            return _trajectory(parent, folder)
        if parent.run_id is not None:
            from ..tracking import trajectory_origin  # MLflow takes seconds to import

            origin = trajectory_origin(parent.run_id)
            if origin is not None:
                return _node(parent, origin, f"run {parent.run_id}")
        here = f"{folder} has other contents" if is_there else f"there is no folder {folder}"
        return f"{here}, and {_no_run(parent)}"

    def _find_checkpoint(self, parent: Parent) -> _Found | str:
        if (path := self._local.get(parent.digest)) is not None:
            return _node(parent, read_entry(path).facts.origin, path)
        if parent.run_id is not None:
            from ..tracking import checkpoint_entries

            for entry in checkpoint_entries(parent.run_id):
                if entry.file.content_sha256 == parent.digest:
                    return _node(parent, entry.facts.origin, f"run {parent.run_id}")
        return f"no checkpoint with these contents in {self._checkpoints}/, and {_no_run(parent)}"

    def _of_run(self, run_id: str) -> _Found:
        from ..tracking import checkpoint_entries, run_phase, trajectory_origin

        if run_phase(run_id) == "target":
            origin = trajectory_origin(run_id)
            parent = Parent(TRAJECTORY, f"of run {run_id}", "", run_id)
            if origin is None:
                raise LineageError(
                    f"run {run_id} has no trajectory that states its origin; give the folder of the trajectory"
                )
            return _node(parent, origin, f"run {run_id}")
        entries = checkpoint_entries(run_id)
        if not entries:
            raise LineageError(
                f"run {run_id} has no checkpoint with a ledger entry; give a run of train-target, train-optimizer or "
                "train-controller, or a file"
            )
        return _of_entry(entries[0], f"run {run_id}")


def _version(source: str) -> _Found:
    from ..tracking import version_origin

    address, run_id, origin = version_origin(source)
    place = "the registry" if run_id is None else f"the registry, run {run_id}"
    if origin is None:
        return Node(MODEL, address, place=place), ()
    return Node(MODEL, address, "", origin.generator, (), place), origin.parents


def _checkpoint(path: Path) -> _Found:
    try:
        return _of_entry(entry_of(path), path)
    except FileFormatError as error:
        content = read_header(path, CHECKPOINT).sha256
        return Node(CHECKPOINT, path.name, content, place=str(path), missing=str(error)), ()


def _of_entry(entry: LedgerEntry, place: str | Path) -> _Found:
    facts = entry.facts
    name = f"{facts.run_name}, step {facts.step}"
    return _node(Parent(CHECKPOINT, name, entry.file.content_sha256), facts.origin, place)


def _trajectory(parent: Parent, folder: Path) -> _Found:
    origin = read_origin(folder)
    if origin is None:
        return Node(TRAJECTORY, parent.name, parent.digest, place=str(folder)), ()
    return _node(parent, origin, folder)


def _beginning(parent: Parent) -> _Found | str:
    """A data set or a weight file, with which a lineage begins: its digest identifies it."""
    if not parent.digest:
        return "its digest is not recorded"
    return Node(parent.kind, parent.name, parent.digest, parent.generator), ()


def _node(parent: Parent, origin: Origin, place: str | Path) -> _Found:
    """A node with its parents.

    Args:
        place: its path, or a run in words.
    """
    validated = passed_checks(place) if isinstance(place, Path) else None
    return Node(parent.kind, parent.name, parent.digest, origin.generator, (), str(place), validated), origin.parents


def _no_run(parent: Parent) -> str:
    return "it names no run" if parent.run_id is None else f"run {parent.run_id} has none of it"


def _name_of(folder: Path) -> str:
    return f"{folder.absolute().parent.name}/{folder.name}"


def _digest_of(folder: Path) -> str:
    from ..trajectories import Trajectory  # torch takes seconds to import

    return Trajectory.open(folder).digest


def _plain(name: str) -> str:
    """A name for files: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "-", name.removeprefix("models:/")).strip("-.") or "lineage"


def _has_ending(path: Path) -> bool:
    return path.suffix in (".png", ".svg")


def _draw(lineage: Lineage, place: Path) -> list[Path]:
    from ..figures import rendered

    written: list[Path] = []
    contents: Iterable[tuple[str, bytes]] = rendered(lineage.figure()).items()
    for ending, content in contents:
        path = place.with_name(f"{place.name}.{ending}")
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        written.append(path)
    return written
