"""Records of validations: which checks a file has passed, and the sha256 of what was checked.

This module does not import torch.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...core.documents import json_text
from ...core.errors import FileFormatError, InvalidConfig
from ...trajectories.ledger_entry import validation_path
from ...weights.atomic import write_text
from ...weights.facts import MAPPING, TEXT, Rule, check_fields
from ...weights.regular import opened, sha256_of_file
from .running import Report
from .subjects import Subject

RECORD = "validated.json"
"""Name of a record in the folder of a trajectory."""

_SCHEMA = 1
_SIDECARS = ("task.json", "growth.json")
_EXPECTED = "a regular file"
_LONGEST = 2**20  # of a record [bytes]
_RULES = {
    "schema": Rule(f"{_SCHEMA}", lambda value: value == _SCHEMA),
    "validated": Rule(
        "names and values", MAPPING.holds, fields={"level": TEXT, "checks": MAPPING, "sha256": TEXT, "time": TEXT}
    ),
}


def validation_record(report: Report, subject: Subject) -> dict[str, Any]:
    """What a subject has passed, for a file beside it or for its lineage.

        from metaopt.operations.validation import validate, validation_record

        report = validate(["trajectories/digits/seed_0"])
        print(validation_record(report, report.subjects[0])["validated"]["checks"])  # {"digests": 1, …}

    Returns: an object with the entry `validated`: `level`, `checks` (the version of each that it passed), `sha256` (of
        a file; of a trajectory that of the lines `<sha256>  <name>` of its files, sorted by name) and `time` (UTC).
    Raises:
        InvalidConfig: a check found something.
    """
    if any(outcome.count for outcome in report.of(subject)):
        raise InvalidConfig(f"{subject.name} has not passed; validate it again when it is mended")
    return {
        "schema": _SCHEMA,
        "validated": {
            "level": report.level,
            "checks": report.versions(subject),
            "sha256": sha256_of(subject),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def write_records(report: Report) -> list[Path]:
    """Write a record beside each subject without a finding, and return the records.

    Raises:
        StorageError: a folder is not writable.
    """
    passed = [each for each in report.subjects if not any(outcome.count for outcome in report.of(each))]
    places = [record_path(subject) for subject in passed]
    for subject, place in zip(passed, places, strict=True):
        write_text(place, json_text(validation_record(report, subject)))
    return places


def passed_checks(path: Path) -> Mapping[str, Any] | None:
    """What a file or the folder of a trajectory has passed: the entry `validated` of its record.

    Returns: None without a record, and with one of other contents or that is damaged.
    """
    subject = Subject("trajectory" if path.is_dir() else "checkpoint", path)
    try:
        with opened(record_path(subject), "the record of a validation") as (file, _):
            record = json.loads(file.read(_LONGEST))
        check_fields(record if isinstance(record, dict) else {}, _RULES)
        validated: dict[str, Any] = record["validated"]
        return validated if validated["sha256"] == sha256_of(subject) else None
    except (FileFormatError, OSError, ValueError, RecursionError):
        return None


def record_path(subject: Subject) -> Path:
    """Where the record of a subject is written."""
    return subject.path / RECORD if subject.kind == "trajectory" else validation_path(subject.path)


def sha256_of(subject: Subject) -> str:
    """The sha256 of a file, or of the list of the files of a trajectory with theirs.

    Raises:
        FileFormatError: a file cannot be read.
    """
    if subject.kind != "trajectory":
        return sha256_of_file(subject.path, _EXPECTED)
    beside = [place for name in _SIDECARS if (place := subject.path / name).exists()]
    files = {path.name: path for path in [*subject.path.glob("[!.]*.safetensors"), *beside]}
    lines = [f"{sha256_of_file(files[name], _EXPECTED)}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
