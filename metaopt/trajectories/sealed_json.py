"""JSON files beside the snapshots, sealed with a sha256 like them: a changed or cut file is noticed."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import FileFormatError
from ..weights.atomic import write_text
from ..weights.header import canonical
from ..weights.regular import read_text

GROWTH_FILE = "growth.json"
"""Name of the file about a network that grew, see `metaopt.growth.history`."""

_DIGEST = "sha256"


def write_sealed(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts as JSON, whole or not at all.

    Raises:
        StorageError: the disk is full or not writable.
    """
    write_text(path, _text({**facts, _DIGEST: _sha256(facts)}))


def read_sealed(path: Path, unsealed: Collection[str] = ()) -> dict[str, Any]:
    """Read the facts of a file, without the digest.

    Args:
        unsealed: names of the facts that a file of an older version may have without a digest.
    Raises:
        FileFormatError: the file is damaged, or is no JSON object.
    """
    text = read_text(path, "a JSON object")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"cannot read {path}: {error}; copy the file again, or record the run again") from error
    if not isinstance(value, dict):
        raise FileFormatError(
            f"{path} contains a JSON {type(value).__name__}; expected a JSON object. Copy the file again"
        )
    facts = {name: each for name, each in value.items() if name != _DIGEST}
    is_sealed = _sha256(facts) == value.get(_DIGEST) and _text(value) == text
    if not is_sealed and not (unsealed and value.keys() <= set(unsealed)):
        raise FileFormatError(f"{path} is damaged: its contents do not match its sha256; copy the file again")
    return facts


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
