"""Files of weights: what their headers and indices say, and which of them are in a folder. No tensor is read."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import FileFormatError, InvalidConfig
from ..core.text import counted, shown
from .folded_names import natural
from .regular import read_text
from .safetensors_header import PICKLES, TensorEntry, entries, read_safetensors_header, without_duplicates

MOST_FILES = 1_000
"""Files of weights in a folder that are inspected together [count]."""

MAX_NAME = 1_000
"""Longest name of a tensor [characters]; regular expressions are applied to names."""

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
"""Ending of an index, which lists the file of each tensor of a network in several files."""

AGAIN = "download the index and its files again"

_MOST_ENTRIES = 20_000  # of a folder and the folders in it
_DEPTH = 5  # of folders in folders, as in the cache of a model hub


@dataclass(frozen=True)
class WeightFile:
    """A safetensors file, of which the header was read.

    Attributes:
        name: its path below the inspected folder; its name, if it is the inspected file.
        size: of the file [bytes].
        header_size: with the eight bytes of its length [bytes].
        header_sha256: digest of these bytes.
        metadata: texts in the header, by name.
        tensors: the tensors in the file, by name.
    """

    name: str
    size: int
    header_size: int
    header_sha256: str
    metadata: Mapping[str, str] = field(repr=False)
    tensors: Mapping[str, TensorEntry] = field(repr=False)


class Index(NamedTuple):
    """An index: the tensors of each file in its folder, and the size of all tensors [bytes], if it states one."""

    files: Mapping[str, Sequence[str]]
    total_size: int | None


class Folder:
    """A folder of weights, or one file of it. Each file is read once.

    Args:
        path: the folder or the file.
    Attributes:
        names: paths of the files and indices of weights below the folder, in natural order.
        pickles: paths of files that may contain weights, too, and are not read, because loading them can run code.
    Raises:
        InvalidConfig: the folder has no files of weights, or too many.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = False
        with suppress(OSError, ValueError):  # a name that no file can have: reading it tells more
            self.is_folder = path.is_dir()
        self.root = path if self.is_folder else path.parent
        self.names, self.pickles = _walk(path) if self.is_folder else ([path.name], [])
        self.read = cache(self._read)
        if not self.names:
            raise InvalidConfig(
                f"{path} has no files that end in {SUFFIX}{_not_read(self.pickles)}; give another folder"
            )
        if len(self.names) > MOST_FILES:
            raise InvalidConfig(
                f"{path} has {len(self.names):,} files of weights, expected at most {MOST_FILES:,}; name a file or a "
                "smaller folder"
            )

    def index(self, name: str) -> Index:
        """Read an index.

        Raises:
            FileFormatError: it has another form, or names files outside its folder.
        """
        path = self.root / name
        try:
            document = json.loads(read_text(path, "an index of safetensors"), object_pairs_hook=without_duplicates)
            files: dict[str, list[str]] = {}
            for tensor, file in document["weight_map"].items():
                if Path(file).name != file or file.startswith(".") or not file.endswith(SUFFIX):
                    raise ValueError(f"it names the file {shown(file)}; expected plain names that end in {SUFFIX}")
                files.setdefault(file, []).append(tensor)
            if not 1 <= len(files) <= MOST_FILES:
                raise ValueError(f"it lists {len(files):,} files; expected 1 to {MOST_FILES:,}")
            total = document.get("metadata", {}).get("total_size")
            return Index(files, total if type(total) is int else None)
        except FileFormatError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise FileFormatError(f"{path} is no index of safetensors files ({shown(error)}); {AGAIN}") from error

    def _read(self, name: str) -> WeightFile:
        path = self.root / name
        header = read_safetensors_header(path)
        tensors = entries(path, header.listed)
        if too_long := next((each for each in tensors if len(each) > MAX_NAME), None):
            raise FileFormatError(f"{path} has the tensor {shown(too_long)}; expected names of {MAX_NAME:,} characters")
        metadata: dict[Any, Any] = header.metadata if isinstance(header.metadata, dict) else {}
        texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
        digest = hashlib.sha256(header.raw).hexdigest()
        return WeightFile(name, header.file_size, len(header.raw), digest, texts, tensors)


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Files and indices of weights, and pickles, without hidden ones."""
    names: list[str] = []
    pickles: list[str] = []
    count = 0
    for root, folders, files in os.walk(folder):
        below = Path(root).relative_to(folder)
        folders[:] = [each for each in folders if not each.startswith(".")] if len(below.parts) < _DEPTH else []
        count += len(folders) + len(files)
        if count > _MOST_ENTRIES:
            raise InvalidConfig(
                f"{folder} has more than {_MOST_ENTRIES:,} files and folders; name a file, or a folder of weights"
            )
        visible = [each for each in files if not each.startswith(".")]
        names += [(below / each).as_posix() for each in visible if each.endswith((SUFFIX, INDEX))]
        pickles += [(below / each).as_posix() for each in visible if each.endswith(PICKLES)]
    return sorted(names, key=natural), sorted(pickles, key=natural)


def _not_read(pickles: Sequence[str]) -> str:
    if not pickles:
        return ""
    files = f"{counted(len(pickles), 'file')} such as {pickles[0]}"
    return f" ({files} may be pickles, which can run any code when loaded, and are not read)"
