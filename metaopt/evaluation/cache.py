"""Cache of finished runs: an interrupted evaluation resumes from it, and later evaluations reuse its runs.

The name of an entry is a digest of everything that determines its run. The entry is a tensor file, sealed like all
others, and repeats what determines its run. The seconds of an entry were measured on the machine that trained it, at
that time. The folder can be deleted at any time.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..core.text import reason_of, shown
from ..nowcast.policy import NowcastEvent
from ..weights.files import digest_of, read_tensors, write_tensors
from .results import Curve, Point

_VERSION = 5  # raise it when an equal configuration would give another run
_KIND = "run"
_NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no such numbers; a run that diverged has such losses

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
        versions = {"metaopt": version("metaopt"), "torch": torch.__version__, "version": _VERSION}
        self._folder, self._facts = folder, {**facts, **versions, "threads": torch.get_num_threads()}

    def get_or_train(self, facts: Mapping[str, Any], train: Callable[[], PairedRun]) -> PairedRun:
        """Read a run from the folder, or train it and store it when it is finished.

        A damaged entry, and one of another run, is trained again. If an entry cannot be written, a warning is logged
        and the run is returned.

        Args:
            facts: what determines this run, in addition to the common facts.
        """
        if self._folder is None:
            return train()
        facts = {**self._facts, **facts}
        path = self._folder / f"{digest_of({}, facts)[:32]}.safetensors"
        if path.exists():
            try:
                return _read(path, facts)
            except FileFormatError as error:
                log.warning("%s cannot be used: %s. The run is trained again", path, error)
        run = train()
        try:
            _write(path, run, facts)
        except StorageError as error:
            log.warning("%s. This evaluation continues; the next one trains this run again", error)
        return run


def _write(path: Path, run: PairedRun, facts: Mapping[str, Any]) -> None:
    tensors = {str(step): weights for step, weights in run.snapshots.items()}
    curves = [_plain(asdict(curve)) for curve in run.curves]
    write_tensors(path, tensors, _KIND, {"run": facts, "curves": curves})


def _read(path: Path, facts: Mapping[str, Any]) -> PairedRun:
    """Read an entry.

    Raises:
        FileFormatError: the entry is damaged, belongs to another run, or does not hold curves and snapshots.
    """
    tensors, stored = read_tensors(path, _KIND)
    if digest_of({}, stored.get("run", {})) != digest_of({}, facts):
        raise FileFormatError("it is the entry of another run")
    try:
        snapshots = {int(step): tensors[step] for step in sorted(tensors, key=int)}
        first, *others = map(_curve, stored["curves"])
    except (LookupError, TypeError, ValueError) as error:
        raise FileFormatError(f"its curves are not those of a run ({reason_of(error)})") from error
    return PairedRun((first, *others), snapshots)


def _curve(values: Mapping[str, Any]) -> Curve:
    points = tuple(Point(int(step), _number(loss), _number(seconds)) for step, loss, seconds in values["points"])
    events = (NowcastEvent(*map(_event_value, event)) for event in values["events"])
    return replace(Curve(**values), points=points, events=tuple(events), cached=True)


def _event_value(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int) else _number(value)


def _plain(value: Any) -> Any:
    """The same value for JSON: numbers that are not finite become texts, as `_number` reads them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _number(value: Any) -> float:
    if value in _NOT_FINITE or (isinstance(value, float) and math.isfinite(value)):
        return float(value)
    raise ValueError(f"{shown(value)} is no number")
