"""Manifests: file lists with sha256, uploaded last, that mark an upload as complete and verify a download."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.errors import TrackingError
from ..core.text import shown

MANIFEST = "manifest.json"
_SCHEMA = 1


class ManifestEntry(NamedTuple):
    """Size [bytes] and sha256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "ManifestEntry":
        """The entry of a local file."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def manifest_of(paths: Sequence[Path]) -> dict[str, ManifestEntry]:
    """The entries of files for one folder, by file name.

    Raises:
        TrackingError: two files have the same name, or a file has the name of the manifest.
    """
    entries = {path.name: ManifestEntry.of(path) for path in paths}
    if len(entries) != len(paths) or MANIFEST in entries:
        raise TrackingError(
            f"cannot store {[path.name for path in paths]} in one folder: expected different names, none of them "
            f"{MANIFEST}; rename a file or use another folder"
        )
    return entries


def to_json(entries: dict[str, ManifestEntry]) -> str:
    """The text of a manifest."""
    files = {name: entry._asdict() for name, entry in entries.items()}
    return json.dumps({"schema": _SCHEMA, "files": files}, indent=2) + "\n"


def from_json(text: str, source: str) -> dict[str, ManifestEntry]:
    """Read an untrusted manifest; names outside its folder are rejected.

    Args:
        source: name of the manifest in messages.
    Raises:
        TrackingError: the text is not a manifest, or a name is not a plain file name.
    """
    try:
        document = json.loads(text)
        schema, files = document["schema"], document["files"]
        entries = {str(name): ManifestEntry(int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TrackingError(
            f"{source} is not a manifest ({shown(error)}); expected names, sizes and sha256: upload the files again"
        ) from error
    if schema != _SCHEMA:
        raise TrackingError(
            f"{source} has schema {shown(schema)}; expected {_SCHEMA}: use the metaopt version that wrote it"
        )
    for name in entries:
        if name in ("", ".", "..", MANIFEST) or any(character in name for character in "/\\\0:"):
            raise TrackingError(
                f"{source} has the file name {shown(name)}; expected plain file names: do not use this upload"
            )
    return entries
