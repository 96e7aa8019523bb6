"""Cache of finished runs: an interrupted evaluation resumes from it, and later evaluations reuse its runs.

The name of an entry is a digest of everything that determines its run. The seconds of an entry were measured on the
machine that trained it, at that time. The folder can be deleted at any time.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..nowcast.policy import NowcastEvent
from ..weights.atomic import write_text
from ..weights.files import digest_of, read_tensors, write_tensors
from .results import Curve, Point

_VERSION = 4  # raise it when an equal configuration would give another run
_KIND = "snapshots"

log = logging.getLogger(__name__)


class PairedRun(NamedTuple):
    """A finished run: its curve, the curves of weights derived from it, and its snapshots by step if they are kept."""

    curves: tuple[Curve, ...]
    snapshots: Mapping[int, Tensor]


class RunCache:
    """Stores finished runs in a folder.

        cache = RunCache(Path("checkpoints/.evaluations"), {"task": "digits", "steps": 480})
        run = cache.get_or_train({"contender": "hold", "random seed": 1000}, train)

    Args:
        folder: where the runs are stored; None stores nothing.
        facts: what determines all runs of an evaluation, as JSON values.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "version": _VERSION}
        self._folder, self._facts = folder, {**facts, **machine}

    def get_or_train(self, facts: Mapping[str, Any], train: Callable[[], PairedRun]) -> PairedRun:
        """Read a run from the folder, or train it and store it when it is finished.

        A damaged entry is trained again. If an entry cannot be written, a warning is logged and the run is returned.

        Args:
            facts: what determines this run, in addition to the common facts.
        """
        if self._folder is None:
            return train()
        path = self._folder / f"{digest_of({}, {**self._facts, **facts})[:32]}.json"
        if path.exists():
            try:
                return _read(path)
            except (FileFormatError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be used: %s. The run is trained again", path, error)
        run = train()
        try:
            _write(path, run)
        except StorageError as error:
            log.warning("%s. This evaluation continues; the next one trains this run again", error)
        return run


def _write(path: Path, run: PairedRun) -> None:
    """The JSON file is written last: an entry with a JSON file is complete."""
    if run.snapshots:
        tensors = {str(step): weights for step, weights in run.snapshots.items()}
        write_tensors(_snapshots_path(path), tensors, _KIND, {})
    entry = {"snapshots": bool(run.snapshots), "curves": [asdict(curve) for curve in run.curves]}
    write_text(path, json.dumps(entry) + "\n")


def _read(path: Path) -> PairedRun:
    entry = json.loads(path.read_text(encoding="utf-8"))
    tensors = read_tensors(_snapshots_path(path), _KIND)[0] if entry["snapshots"] else {}
    snapshots = {int(step): tensors[step] for step in sorted(tensors, key=int)}
    return PairedRun(tuple(map(_curve, entry["curves"])), snapshots)


def _curve(values: dict[str, Any]) -> Curve:
    points, events = (Point(*each) for each in values["points"]), (NowcastEvent(*each) for each in values["events"])
    return replace(Curve(**values), points=tuple(points), events=tuple(events), cached=True)


def _snapshots_path(path: Path) -> Path:
    return path.with_suffix(".safetensors")
