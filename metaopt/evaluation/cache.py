"""Finished twins on disk: what a killed evaluation goes on from, and what later evaluations reuse.

An entry is named by a digest of everything that determines its twin. Seconds are those of the machine and the hour in
which it was trained. The folder can be deleted at any time.
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
from ..weights.files import digest_of, read_tensors, write_tensors, write_text
from .results import Curve, Point

_VERSION = 4  # raise it when an equal configuration would train another twin
_KIND = "snapshots"

log = logging.getLogger(__name__)


class PairedRun(NamedTuple):
    """One training: its curve and those of what is read out of it, and its snapshots by step where they are kept."""

    curves: tuple[Curve, ...]
    snapshots: Mapping[int, Tensor]


class RunCache:
    """Keeps twins in a folder; without a folder nothing is kept.

    Args:
        facts: what determines all twins alike, as JSON can hold it.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "version": _VERSION}
        self._folder, self._facts = folder, {**facts, **machine}

    def twin(self, facts: Mapping[str, Any], train: Callable[[], PairedRun]) -> PairedRun:
        """A twin from the folder, or trained now and put there as a whole once it has ended.

        A damaged entry is trained anew. A cache that cannot be written costs time, not the evaluation.

        Args:
            facts: what determines this twin beside what all share.
        """
        if self._folder is None:
            return train()
        path = self._folder / f"{digest_of({}, {**self._facts, **facts})[:32]}.json"
        if path.exists():
            try:
                return _read(path)
            except (FileFormatError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be used: %s. The twin is trained anew", path, error)
        twin = train()
        try:
            _write(path, twin)
        except StorageError as error:
            log.warning("%s. This evaluation goes on; the next one has to train this twin again", error)
        return twin


def _write(path: Path, twin: PairedRun) -> None:
    """The curves stand in JSON, which is written last and so says that the entry is whole."""
    if twin.snapshots:
        tensors = {str(step): weights for step, weights in twin.snapshots.items()}
        write_tensors(_snapshots(path), tensors, _KIND, {})
    entry = {"snapshots": bool(twin.snapshots), "curves": [asdict(curve) for curve in twin.curves]}
    write_text(path, json.dumps(entry) + "\n")


def _read(path: Path) -> PairedRun:
    entry = json.loads(path.read_text(encoding="utf-8"))
    tensors = read_tensors(_snapshots(path), _KIND)[0] if entry["snapshots"] else {}
    return PairedRun(
        tuple(map(_curve, entry["curves"])), {int(step): tensors[step] for step in sorted(tensors, key=int)}
    )


def _curve(values: dict[str, Any]) -> Curve:
    points, events = (Point(*each) for each in values["points"]), (NowcastEvent(*each) for each in values["events"])
    return replace(Curve(**values), points=tuple(points), events=tuple(events), cached=True)


def _snapshots(path: Path) -> Path:
    return path.with_suffix(".safetensors")
