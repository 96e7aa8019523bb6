"""Quick checks of safetensors files: headers, facts, shapes, shards and names. No tensor is read."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import FileFormatError, MetaoptError
from ...core.text import shown
from ...weights.header import Header, read_header, shard_headers
from ...weights.regular import read_text
from ...weights.safetensors_header import COPY_AGAIN, TensorEntry, entries
from ...weights.shards import is_shard, shard_paths
from .base import QUICK, CannotCheck, Check, Finding
from .subjects import Subject

_SIDECARS = ("task.json", "run.json", "growth.json")
_FLOATING = re.compile(r"B?F[0-9]+")
_DTYPE_BITS = re.compile(r"(float|bfloat)\d+")


class FileHeaders(Check):
    """The header of each file and its shards is whole, of a known schema, and has the facts of its kind."""

    level = QUICK
    kinds = ("trajectory", "checkpoint", "model")

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each file that cannot be used."""
        if subject.kind == "trajectory" and not subject.snapshots:
            yield Finding(subject.name, "it has no snapshots; copy the trajectory again, or record it again")
        for path in subject.files:
            try:
                tensors_of(path, _header(path, subject))
            except FileFormatError as error:
                yield Finding(path.name, str(error))


class LayoutShapes(Check):
    """The tensors of each snapshot have the names, shapes and kinds of numbers of its layout."""

    level = QUICK
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each tensor that differs."""
        for path, header in _readable(subject):
            layout = header.facts["layout"] if header.kind == "snapshot" else None
            for difference in [] if layout is None else _differences(layout, tensors_of(path, header)):
                yield Finding(path.name, f"{difference}. Record the run again, or copy it again")


class FileNames(Check):
    """Snapshots have the names of their steps, each shard is listed by a file, and the files beside them are JSON."""

    level = QUICK
    kinds = ("trajectory",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each file with another name or form."""
        listed = set[str]()
        for path, header in _readable(subject):
            listed |= {shard.name for shard in shard_paths(path, header.shards)}
            step = header.facts.get("step")
            if header.kind == "snapshot" and path.name != f"step_{step:08d}.safetensors":
                yield Finding(path.name, f"it is the snapshot of step {step}; rename it to step_{step:08d}.safetensors")
        for path in sorted(subject.path.glob("shard_*")):
            if is_shard(path) and path.name not in listed:
                yield Finding(path.name, "no file lists this shard; copy the file that it belongs to, or remove it")
        for name in _SIDECARS:
            if (place := subject.path / name).exists():
                yield from _json_findings(place)


class Skeletons(Check):
    """The description of the state names each tensor of a checkpoint once, and an average of each weight."""

    level = QUICK
    kinds = ("checkpoint",)

    def check(self, subject: Subject) -> Iterator[Finding]:
        """One finding for each tensor that is missing, unused, or of another shape than its average."""
        for path, header in _readable(subject):
            tensors = tensors_of(path, header)
            try:
                named = _named(header.facts.get("state"))
            except (TypeError, ValueError) as error:
                yield Finding(path.name, f"the description of its state is invalid ({shown(error)}); {COPY_AGAIN}")
                continue
            for name in sorted({*tensors} ^ {*named}):
                problem = "is used by no part of the state" if name in tensors else "is missing"
                yield Finding(path.name, f"the tensor {shown(name)} {problem}; {COPY_AGAIN}")
            if len(named) > len({*named}):
                yield Finding(path.name, f"the description of its state uses a tensor twice; {COPY_AGAIN}")
            if "optimizer" in header.facts:
                yield from _averages(path, tensors)


def tensors_of(path: Path, header: Header) -> dict[str, TensorEntry]:
    """The tensors of a file and its shards, as their headers list them.

    Raises:
        FileFormatError: a list of tensors is wrong, or a shard is missing or is another one.
    """
    found = entries(path, header.listed)
    for shard, part in shard_headers(path, header):
        found |= entries(shard, part.listed)
    return found


def file_kind(path: Path, subject: Subject) -> str:
    """The kind that the header of a file of a subject must state.

    Raises:
        FileFormatError: the file is damaged, or of a kind that is no subject.
    """
    if subject.kind == "trajectory":
        return "frozen" if path.name.startswith("frozen") else "snapshot"
    return "checkpoint" if subject.kind == "checkpoint" else read_header(path).kind


def _header(path: Path, subject: Subject) -> Header:
    return read_header(path, file_kind(path, subject))


def _readable(subject: Subject) -> Iterator[tuple[Path, Header]]:
    """The files of a subject and their headers, if `FileHeaders` finds nothing.

    Raises:
        CannotCheck: it finds something.
    """
    try:
        for path in subject.files:
            header = _header(path, subject)
            tensors_of(path, header)
            yield path, header
    except FileFormatError as error:
        raise CannotCheck("a header is damaged") from error


def _differences(layout: Any, tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """What differs between a layout and the tensors of a file, in sentences without an end."""
    if not layout:
        yield "its layout has no tensors"
    for entry in layout:
        try:
            name, shape, dtype = entry
            found = tensors.get(name)
        except (TypeError, ValueError):
            yield f"its layout has the entry {shown(entry)}; expected [name, shape, dtype]"
            continue
        if found is None:
            yield f"it has no tensor {shown(name)}, which its layout lists"
        elif list(found.shape) != shape:
            yield f"{shown(name)} has the shape {shown(list(found.shape))}; its layout says {shown(shape)}"
        elif not _FLOATING.match(found.dtype) or not _DTYPE_BITS.match(str(dtype)):
            yield f"{shown(name)} is {found.dtype}, its layout says {shown(dtype)}; expected floating-point weights"


def _json_findings(path: Path) -> Iterator[Finding]:
    try:
        value = json.loads(read_text(path, "a JSON object"))
        if not isinstance(value, dict):
            yield Finding(path.name, f"it contains a JSON {type(value).__name__}; expected an object. Copy it again")
    except MetaoptError as error:
        yield Finding(path.name, str(error))
    except (ValueError, RecursionError) as error:
        yield Finding(path.name, f"it is not JSON ({shown(error)}); copy it again")


def _named(skeleton: Any) -> list[str]:
    """The names of the tensors in the skeleton of a state.

    Raises:
        TypeError, ValueError: it is no skeleton.
    """
    if isinstance(skeleton, list):
        return [name for each in skeleton for name in _named(each)]
    if not isinstance(skeleton, dict):
        return []
    ((tag, content),) = skeleton.items()
    if tag == "tensor" and isinstance(content, str):
        return [content]
    if tag == "tuple" and isinstance(content, list):
        return _named(content)
    if tag == "dict" and isinstance(content, list):
        return [name for _, value in content for name in _named(value)]
    raise ValueError(f"unknown tag {shown(tag)}")


def _averages(path: Path, tensors: Mapping[str, TensorEntry]) -> Iterator[Finding]:
    """Weights of an optimizer without an average of the same shape."""
    for name, entry in tensors.items():
        place, _, rest = name.partition("/")
        average = tensors.get(f"averaged/{rest}")
        if place == "model" and (average is None or average.shape != entry.shape):
            yield Finding(
                path.name, f"{shown(rest)} has no average of its shape {shown(list(entry.shape))}; {COPY_AGAIN}"
            )
