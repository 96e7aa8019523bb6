"""The networks in a file or a folder: shards are joined, and the experts of a mixture told apart."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..core.errors import FileFormatError
from ..core.text import counted, shown
from .folded_names import natural
from .header import KEY
from .safetensors_header import TensorEntry
from .shards import are_digests, is_shard, shard_paths
from .weight_files import AGAIN, INDEX, SUFFIX, Folder, WeightFile

_NUMBERED = re.compile(r"(?P<name>.+)-[0-9]{5}-of-(?P<count>[0-9]{5})\.safetensors")
_EXPERT = re.compile(r"(high|low)[-_ ]?noise", re.IGNORECASE)
_EXPERTS_OF_DIFFUSERS = {"transformer": "high_noise", "transformer_2": "low_noise"}


@dataclass(frozen=True)
class Network:
    """The tensors of one network, which may lie in several files.

    Attributes:
        name: the folder, the file or the expert.
        files: its files, in order.
        tensors: by name.
        expert: `high_noise` or `low_noise` for the experts of Wan 2.2, if names tell it.
        notes: what is unusual about the files, in sentences.
    """

    name: str
    files: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorEntry] = field(repr=False)
    expert: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers its tensors have."""
        return sum(entry.size for entry in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Size of its tensors in the files [bytes]."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @cached_property
    def dtypes(self) -> Mapping[str, int]:
        """How many numbers there are of each dtype, most first."""
        found: dict[str, int] = {}
        for entry in self.tensors.values():
            found[entry.dtype] = found.get(entry.dtype, 0) + entry.size
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def structure(self) -> frozenset[tuple[str, tuple[int, ...], str]]:
        """Name, shape and dtype of each tensor; equal for networks that are alike."""
        return frozenset((name, entry.shape, entry.dtype) for name, entry in self.tensors.items())


def networks_in(folder: Folder) -> tuple[Network, ...]:
    """Read the headers of all files of a folder.

    Shards are joined by their index (`*.safetensors.index.json`), by their names (`…-00001-of-00003.safetensors`), or
    by the list in the header of a file of metaopt.

    Returns: the networks in natural order of their names.
    Raises:
        FileFormatError: a file is missing, a pickle or damaged, or does not fit its index.
    """
    found = [expert for network in _joined(folder) for expert in _experts_inside(network)]
    names = {network.name.rpartition("/")[2] for network in found}
    of_diffusers = _EXPERTS_OF_DIFFUSERS if _EXPERTS_OF_DIFFUSERS.keys() <= names else {}
    return tuple(
        replace(each, expert=each.expert or _expert_in(each.name) or of_diffusers.get(each.name.rpartition("/")[2]))
        for each in sorted(found, key=lambda network: natural(network.name))
    )


def _joined(folder: Folder) -> Iterator[Network]:
    left = dict.fromkeys(folder.names)
    for name in folder.names:
        if name in left and name.endswith(INDEX):
            network = _indexed(folder, name)
            for file in (name, *(each.name for each in network.files)):
                left.pop(file, None)
            yield network
    for name in [*left]:
        if name in left and (files := _members(folder, name)):
            for file in files:
                left.pop(file, None)
            yield _network(_name_of(folder, name), [folder.read(file) for file in files])


def _members(folder: Folder, name: str) -> list[str]:
    """All files of the network of a file, in order; none for a shard of metaopt, which belongs to another file."""
    if folder.is_folder and is_shard(folder.root / name):
        return []
    numbered = _NUMBERED.fullmatch(name)
    if not folder.is_folder or numbered is None:
        return [name, *_shards_of(folder, name)]
    count = int(numbered["count"])
    expected = [f"{numbered['name']}-{number:05d}-of-{numbered['count']}{SUFFIX}" for number in range(1, count + 1)]
    if missing := next((each for each in expected if each not in folder.names), None):
        raise FileFormatError(f"{folder.root / name} is one of {count} files, and {missing} is missing; download it")
    return expected


def _shards_of(folder: Folder, name: str) -> list[str]:
    """The shards of a file of metaopt, which its header lists; none for other files."""
    metadata = folder.read(name).metadata
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        digests = json.loads(metadata[KEY])["shards"]
        if are_digests(digests):
            return [path.relative_to(folder.root).as_posix() for path in shard_paths(folder.root / name, digests)]
    return []


def _indexed(folder: Folder, name: str) -> Network:
    """The network of an index, whose files have all tensors that it lists."""
    index, place, below = folder.index(name), folder.root / name, Path(name).parent
    try:
        files = {file: folder.read((below / file).as_posix()) for file in index.files}
    except FileFormatError as error:
        raise FileFormatError(f"{place} lists a file that cannot be used: {error}") from error
    network = _network(_name_of(folder, name), [*files.values()])
    for file, tensors in index.files.items():
        if absent := next((each for each in tensors if each not in files[file].tensors), None):
            raise FileFormatError(f"{place} lists {shown(absent)} in {file}, which does not have it; {AGAIN}")
    notes = []
    if unlisted := len(network.tensors) - sum(map(len, index.files.values())):
        notes.append(f"the index does not list {counted(unlisted, 'tensor')} of its files")
    if index.total_size not in (None, network.nbytes):
        notes.append(f"the index states {index.total_size:,} bytes of tensors, the files have {network.nbytes:,}")
    return replace(network, notes=tuple(notes))


def _network(name: str, files: Sequence[WeightFile]) -> Network:
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        if twice := next((each for each in file.tensors if each in tensors), None):
            raise FileFormatError(f"{file.name} and another file of {name} both have {shown(twice)}; {AGAIN}")
        tensors |= file.tensors
    return Network(name, tuple(files), tensors)


def _name_of(folder: Folder, name: str) -> str:
    """The name of a network: its folder, if it lies in numbered files, else its file without the ending."""
    if not folder.is_folder:
        return folder.path.name
    if not name.endswith(INDEX) and not _NUMBERED.fullmatch(name):
        return name.removesuffix(SUFFIX)
    below = Path(name).parent
    return folder.path.resolve().name if below == Path() else below.as_posix()


def _experts_inside(network: Network) -> list[Network]:
    """The experts in one file, where names of tensors begin with the expert's name; else the network itself."""
    by_expert: dict[str | None, dict[str, TensorEntry]] = {}
    for name, entry in network.tensors.items():
        by_expert.setdefault(_expert_in(name.partition(".")[0]), {})[name] = entry
    if not {"high_noise", "low_noise"} <= by_expert.keys():
        return [network]
    return [
        replace(network, name=f"{network.name}: {expert or 'the rest'}", tensors=tensors, expert=expert)
        for expert, tensors in by_expert.items()
    ]


def _expert_in(name: str) -> str | None:
    found = {match.lower() for match in _EXPERT.findall(name)}
    return f"{found.pop()}_noise" if len(found) == 1 else None
