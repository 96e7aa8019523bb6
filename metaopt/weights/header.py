"""Our entry in the headers of our files, checked before anything that it describes is used.

The metadata of a safetensors header holds it in canonical JSON: the kind of the file, the schema, the facts, the
digests of the shards and the sha256.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import FileFormatError
from ..core.text import shortened, shown
from .facts import FACTS, first_violation
from .regular import MAX_TEXT
from .safetensors_header import COPY_AGAIN, MAX_TENSORS, read_safetensors_header
from .shards import are_digests, shard_paths

SCHEMA = 1
KEY = "metaopt"
"""Name of our entry in the metadata of safetensors."""

SHARD = "shard"
"""Kind of the shards of a large file."""

MAX_DEPTH = 100
"""Deepest nesting of lists and objects in the metadata, so that recursive functions can read them [count]."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class Header:
    """The checked header of a file.

    Args:
        kind: "snapshot", "checkpoint", "optimizer", "weights", ….
        facts: the facts of the kind.
        shards: digest of each shard, in order.
        sha256: digest of header and tensors.
        listed: the tensors in the file itself, by name, as safetensors lists them; those of shards are in their own
            headers.
    """

    kind: str
    facts: dict[str, Any]
    shards: list[str]
    sha256: str
    listed: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """The values that the digest covers."""
        shards = {"shards": self.shards} if self.shards else {}
        return {"kind": self.kind, "schema": SCHEMA, "facts": self.facts, **shards}


def read_header(path: Path, kind: str | None = None) -> Header:
    """Read and check the header of a file quickly; the tensors are not read.

    Args:
        kind: the expected kind, whose facts are then checked; None for any.
    Raises:
        FileFormatError: the file is not regular, truncated, a pickle, not safetensors, of another kind or schema, too
            large in its header, or its facts are not those of its kind.
    """
    header = read_safetensors_header(path)
    return _described(path, header.metadata, kind, header.listed)


def shard_headers(path: Path, header: Header) -> Iterator[tuple[Path, Header]]:
    """The shards of a file and their headers, read quickly; the tensors are not read.

    Raises:
        FileFormatError: a shard is missing or damaged, or is not the listed one; or two have a tensor in common.
    """
    names = set(header.listed)
    for shard, digest in zip(shard_paths(path, header.shards), header.shards, strict=True):
        try:
            part = read_header(shard, SHARD)
        except FileFormatError as error:
            raise FileFormatError(f"{path} lacks a shard: {error}") from error
        if part.sha256 != digest:
            raise FileFormatError(f"{shard} is not the shard that {path.name} lists; copy both again")
        if not names.isdisjoint(part.listed):
            raise FileFormatError(f"{path} is damaged: a tensor of {shard.name} is stored twice; {COPY_AGAIN}")
        names.update(part.listed)
        yield shard, part


def canonical(value: Any) -> str:
    """The only JSON text of a value that a file may contain."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def check_bounds(path: Path, description: Mapping[str, Any], tensors: int) -> None:
    """Check that readers will accept a file that is to be written.

    Raises:
        FileFormatError: its metadata are nested too deeply or too large, or it has too many tensors.
    """
    text = canonical(description)
    if tensors > MAX_TENSORS or len(text) > MAX_TEXT // 2 or not _is_shallow(text):
        raise FileFormatError(
            f"cannot write {path}: {tensors:,} tensors, and {len(text):,} characters of facts; expected at most "
            f"{MAX_TENSORS:,} tensors and {MAX_TEXT // 2:,} characters, nested at most {MAX_DEPTH} deep: "
            "store less in one file"
        )


def _described(path: Path, metadata: Any, kind: str | None, listed: dict[str, Any]) -> Header:
    """Our entry in the metadata, checked."""
    try:
        text = metadata[KEY]
        header: dict[str, Any] = json.loads(text)
        found, schema, facts, digest = header["kind"], header["schema"], header["facts"], header["sha256"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is safetensors but has no metaopt header; expected a {kind or 'metaopt'} file"
        ) from error
    if schema != SCHEMA or type(schema) is not int:
        raise FileFormatError(
            f"{path} has schema {shown(schema)}; this metaopt reads schema {SCHEMA}: use the version that wrote it"
        )
    if kind is not None and found != kind:
        raise FileFormatError(f"{path} is a {shortened(str(found), 40)} file; expected a {kind} file")
    shards = header.get("shards", [])
    known = {"kind", "schema", "facts", "shards", "sha256"}
    if not isinstance(found, str) or not isinstance(facts, dict) or not _is_shallow(text) or header.keys() - known:
        raise FileFormatError(f"{path} is damaged: its kind or its facts have another form; {COPY_AGAIN}")
    if not are_digests([digest]) or not are_digests(shards) or len(shards) > MAX_TENSORS:
        raise FileFormatError(f"{path} is damaged: its list of shards does not hold sha256 digests; {COPY_AGAIN}")
    if canonical(header) != text:  # the digest covers the parsed values, and 1E-05 parses like 1e-05
        raise FileFormatError(f"{path} is damaged: its header is not in the form that metaopt writes; {COPY_AGAIN}")
    if kind is not None and (violation := first_violation(facts, FACTS.get(kind, {}))):
        raise FileFormatError(f"{path} is not a valid {kind}: {violation}. Copy it again, or create it again")
    return Header(found, facts, shards, digest, listed)


def _is_shallow(text: str) -> bool:
    """Whether a JSON text is nested at most about `MAX_DEPTH` deep: removes innermost brackets until none is left."""
    brackets = _STRING.sub("", text).encode().translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets
