"""Validation: checks of recordings, checkpoints, exported models and files of conversations, as plug-ins.

    from metaopt.operations.validation import validate

    report = validate(["trajectories/digits/seed_0"], "standard")
    print(report.failed, report.table())

`CHECKS` names the module that defines each check; plug-ins add some by the entry-point group `metaopt.checks`. Quick
checks, and those of files of conversations, do not import torch.
"""

from typing import TYPE_CHECKING, NamedTuple

from ...core.config import build_configured
from ...core.lazy import lazy_names
from ...core.registry import Registry
from .base import DEEP, KINDS, LEVELS, QUICK, STANDARD, CannotCheck, Check, CheckConfig, Finding

if TYPE_CHECKING:
    from .packing import Packed as Packed
    from .packing import pack as pack
    from .records import validation_record as validation_record
    from .running import Outcome as Outcome
    from .running import Report as Report
    from .running import ValidateConfig as ValidateConfig
    from .running import validate as validate
    from .subjects import Settings as Settings
    from .subjects import Subject as Subject
    from .subjects import find_subjects as find_subjects


class _Entry(NamedTuple):
    """A check of metaopt: where it is defined, and what is known before it is imported."""

    place: str
    level: str
    kinds: tuple[str, ...]


_OF_WEIGHTS = ("trajectory", "checkpoint", "model")
_TABLE = {
    "file-headers": _Entry("headers:FileHeaders", QUICK, _OF_WEIGHTS),
    "file-names": _Entry("headers:FileNames", QUICK, ("trajectory",)),
    "layout-shapes": _Entry("headers:LayoutShapes", QUICK, ("trajectory",)),
    "skeletons": _Entry("headers:Skeletons", QUICK, ("checkpoint",)),
    "line-schemas": _Entry("conversations:LineSchemas", QUICK, ("conversations",)),
    "digests": _Entry("values:Digests", STANDARD, _OF_WEIGHTS),
    "finite-values": _Entry("values:FiniteValues", STANDARD, _OF_WEIGHTS),
    "checkpoint-state": _Entry("values:CheckpointState", STANDARD, ("checkpoint",)),
    "snapshot-order": _Entry("recordings:SnapshotOrder", STANDARD, ("trajectory",)),
    "snapshot-path": _Entry("recordings:SnapshotPath", STANDARD, ("trajectory",)),
    "line-contents": _Entry("conversations:LineContents", STANDARD, ("conversations",)),
    "packed-masks": _Entry("packed_masks:PackedMasks", STANDARD, ("conversations",)),
    "measured-losses": _Entry("reloading:MeasuredLosses", DEEP, ("trajectory",)),
    "reload": _Entry("reloading:Reload", DEEP, ("checkpoint", "model")),
    "repeated-recordings": _Entry("leakage:RepeatedRecordings", DEEP, ("trajectory",)),
    "held-out-leakage": _Entry("leakage:HeldOutLeakage", DEEP, ("trajectory", "checkpoint")),
    "repeated-lines": _Entry("repeated_lines:RepeatedLines", DEEP, ("conversations",)),
}

CHECKS = Registry(
    "check", "metaopt.checks", {name: f"{__name__}.{entry.place}" for name, entry in _TABLE.items()}, base=Check
)
"""Checks by name, including those of installed plug-ins."""


def get_check(name: str) -> Check:
    """A check by name.

    Raises:
        UnknownName: there is no such check; the message lists the nearest names.
    """
    check: Check = build_configured(CHECKS.get(name), {})
    return check


def checks_for(level: str, kind: str) -> dict[str, Check]:
    """The checks of one level for one kind of subject, by name; those of plug-ins come last.

    Others of metaopt are not imported: most of them need torch, which takes seconds.

    Raises:
        UnknownName, InvalidConfig: a plug-in cannot be imported, or is no check.
    """
    names = [name for name, entry in _TABLE.items() if entry.level == level and kind in entry.kinds]
    plug_ins = [name for name in CHECKS.names() if name not in _TABLE]
    found = {name: get_check(name) for name in [*names, *plug_ins]}
    return {name: check for name, check in found.items() if check.level == level and kind in check.kinds}


_MODULES = {
    "Outcome": "running",
    "Packed": "packing",
    "Report": "running",
    "Settings": "subjects",
    "Subject": "subjects",
    "ValidateConfig": "running",
    "find_subjects": "subjects",
    "pack": "packing",
    "validate": "running",
    "validation_record": "records",
}

__all__ = [
    "CHECKS",
    "DEEP",
    "KINDS",
    "LEVELS",
    "QUICK",
    "STANDARD",
    "CannotCheck",
    "Check",
    "CheckConfig",
    "Finding",
    "checks_for",
    "get_check",
    *_MODULES,
]
__getattr__ = lazy_names(__name__, _MODULES)
