"""The list of a folder's files that is uploaded last: what makes an upload finished, and a download verified."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.errors import TrackingError

MANIFEST = "manifest.json"
_SCHEMA = 1


class Entry(NamedTuple):
    """What a file must be: its size [bytes] and its sha256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Entry":
        """What a file is."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def describe(paths: Sequence[Path]) -> dict[str, Entry]:
    """What the files of one folder are, by name.

    Raises:
        TrackingError: two files have one name, or a file is called like the manifest.
    """
    entries = {path.name: Entry.of(path) for path in paths}
    if len(entries) != len(paths) or MANIFEST in entries:
        raise TrackingError(
            f"cannot store {[path.name for path in paths]} in one folder: expected different names, none of them "
            f"{MANIFEST}; rename a file or use another folder"
        )
    return entries


def to_json(entries: dict[str, Entry]) -> str:
    """A manifest's text."""
    files = {name: entry._asdict() for name, entry in entries.items()}
    return json.dumps({"schema": _SCHEMA, "files": files}, indent=2) + "\n"


def from_json(text: str, where: str) -> dict[str, Entry]:
    """Read a manifest, trusting nothing: a name that leaves its folder is refused.

    Args:
        where: what the message calls it.
    Raises:
        TrackingError: it is not a manifest of ours, or states a name that is not a plain file name.
    """
    try:
        document = json.loads(text)
        schema, files = document["schema"], document["files"]
        entries = {str(name): Entry(int(stated["size"]), str(stated["sha256"])) for name, stated in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrackingError(
            f"{where} is no manifest ({error!r}); expected names, sizes, sha256: upload again"
        ) from error
    if schema != _SCHEMA:
        raise TrackingError(f"{where} has schema {schema}; expected {_SCHEMA}: use the metaopt version that wrote it")
    for name in entries:
        if name in ("", ".", "..", MANIFEST) or any(sign in name for sign in "/\\\0:"):
            raise TrackingError(f"{where} names a file {name!r}; expected plain file names: do not use this upload")
    return entries
