"""Weights that a training starts from: files of metaopt or of other programs, matched with a network by their names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core.errors import FileFormatError, InvalidConfig, LayoutMismatch
from ..core.text import counted, shown
from ..trajectories import Trajectory
from ..trajectories.origin import WEIGHTS, Parent
from ..trajectories.parents import file_parents
from ..trajectories.whole_network import is_trajectory, read_whole_network
from ..weights.building import check_finite, check_state
from ..weights.files import digest_of
from ..weights.header import KEY
from ..weights.networks import Network, networks_in
from ..weights.safetensors_header import COPY_AGAIN
from ..weights.weight_files import Folder
from .aliases import WAN, AliasTable
from .merging import merged

_SHOWN = 3  # names in a message


class Part(NamedTuple):
    """Weights for a network, or for a module of it.

    Attributes:
        module: name of the module; empty for the whole network.
        tensors: weights and buffers by their names in the module.
        digest: of the tensors, under the names of the module.
    """

    module: str
    tensors: dict[str, Tensor]
    digest: str


@dataclass(frozen=True)
class InitialWeights:
    """The weights of a network, or of some of its modules.

        from pathlib import Path
        from metaopt import get_target_model
        from metaopt.adapters import read_initial_weights
        from metaopt.weights.model_files import save_model_weights

        model = get_target_model("MLP", in_features=4, widths=(8,))
        save_model_weights(model, "base.safetensors")
        initial = read_initial_weights(Path("base.safetensors"), model)
        initial.load_into(model)
        initial.facts  # {'': 'a digest of 64 characters'}

    Attributes:
        parts: at least one.
        unused: names of networks in the folder that are no part of the network.
        parents: the files, for the origin of what is trained from them.
    """

    parts: tuple[Part, ...]
    unused: tuple[str, ...] = ()
    parents: tuple[Parent, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """The digest of each part by the name of its module."""
        return {part.module: part.digest for part in self.parts}

    def left_out(self, model: nn.Module) -> list[str]:
        """The modules of a network that keep their weights, though others are loaded."""
        loaded = {part.module for part in self.parts}
        return [] if "" in loaded else [name for name, _ in model.named_children() if name not in loaded]

    def load_into(self, model: nn.Module) -> None:
        """Copy the weights into a network, in its precision and on its device."""
        with torch.no_grad():
            for part in self.parts:
                own = model.get_submodule(part.module).state_dict(keep_vars=True)
                for name, tensor in part.tensors.items():
                    own[name].copy_(tensor)


def read_initial_weights(
    path: Path, model: nn.Module, aliases: AliasTable | None = WAN, expert: str | None = None
) -> InitialWeights:
    """Read weights for a network or for some of its modules.

    The weights of a network in a file belong to the network, or to that module directly below it which has the same
    names of weights: the folder of a pipeline has files for several modules. Prefixes and other namings are known, as
    in `metaopt inspect`. Of a recording, the last snapshot is read; adapters in it are merged into their matrices.

    Args:
        path: a safetensors file, an index of several, a folder of such files, or the folder of a trajectory.
        model: which names and shapes are expected; it may be on the device `meta`, and is not changed.
        aliases: other spellings of names.
        expert: `high_noise` or `low_noise`: the other expert of a mixture is left out.
    Raises:
        InvalidConfig: there is no such file or expert, or no network in it fits; the message has the first differences.
        FileFormatError: a file is damaged, a pickle, or of another kind.
        LayoutMismatch: the names fit, but a shape does not, or a weight is not finite.
    """
    sources = [*_sources(path)]
    if expert is not None:
        sources = _of_expert(sources, expert, path)
    modules = [("", model), *model.named_children()]
    found: dict[str, Part] = {}
    unused: dict[str, str] = {}
    used: dict[str, _Source] = {}
    for source in sources:
        fits = {name: _Names(module, source.names, aliases) for name, module in modules}
        module = next((name for name, names in fits.items() if names.fit), None)
        if module is None:
            unused[source.name] = min(fits.values(), key=lambda names: names.differences).explained()
        elif module in found:
            fitting = module or type(model).__name__
            raise InvalidConfig(f"{path} has several networks that fit {fitting}; name the file of one, or an expert")
        else:
            found[module] = _part(source, module, model, fits[module].pairs, path)
            used[module] = source
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*unused.items()][:_SHOWN])
        raise InvalidConfig(f"no weights in {path} fit {type(model).__name__} or a module directly below it. {why}")
    return InitialWeights(tuple(found.values()), tuple(unused), _parents(path, found, used))


def _parents(path: Path, found: Mapping[str, Part], used: Mapping[str, "_Source"]) -> tuple[Parent, ...]:
    """The files of metaopt, and all others together."""
    own = [parent for source in used.values() if source.recorded for parent in file_parents(source.recorded)]
    foreign = {name: part.digest for name, part in found.items() if used[name].recorded is None}
    others = [Parent(WEIGHTS, path.absolute().name, digest_of({}, foreign))] if foreign else []
    return tuple(dict.fromkeys([*own, *others]))


def _part(source: "_Source", module: str, model: nn.Module, pairs: Mapping[str, str], path: Path) -> Part:
    read = source.read()
    tensors = {own: read[given] for own, given in pairs.items()}
    within = model.get_submodule(module)
    state = {name: tensor for name, tensor in within.state_dict(keep_vars=True).items() if name in tensors}
    try:
        check_state(module or type(model).__name__, state, tensors)
        check_finite({name: tensors[name] for name, _ in within.named_parameters() if name in tensors})
    except LayoutMismatch as error:
        raise LayoutMismatch(f"{path} does not fit: {error}") from error
    return Part(module, tensors, digest_of(tensors, {}))


class _Names:
    """The names of a module's weights, compared with those in a file.

    Attributes:
        pairs: the name in the file by the name in the module; of tied weights, one name.
        missing, extra: names of the module that the file lacks, and the other way round.
    """

    def __init__(self, module: nn.Module, given: list[str], aliases: AliasTable | None) -> None:
        tied: dict[int, list[str]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            tied.setdefault(id(tensor), []).append(name)
        own = [name for names in tied.values() for name in names]
        compared, wanted = (
            aliases.comparable(names) if aliases else {name: name for name in names} for names in (given, own)
        )
        by_name = {other: name for name, other in compared.items()}
        self.pairs: dict[str, str] = {}
        self.missing: list[str] = []
        for names in tied.values():
            present = [name for name in names if wanted[name] in by_name]
            self.pairs |= {name: by_name[wanted[name]] for name in present[:1]}
            self.missing += [] if present else names[:1]
        known = {*wanted.values()}
        self.extra = [name for name, other in compared.items() if other not in known]
        self._owner = type(module).__name__

    @property
    def differences(self) -> int:
        return len(self.missing) + len(self.extra)

    @property
    def fit(self) -> bool:
        return bool(self.pairs) and not self.differences

    def explained(self) -> str:
        """The first differences in words."""
        lacks = f"it lacks {_first(self.missing)} of {self._owner}" if self.missing else ""
        has = f"it has {_first(self.extra)} more" if self.extra else ""
        return " and ".join(filter(None, (lacks, has))) or f"{self._owner} has no weights"


def _first(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return f"{counted(len(names), 'tensor')} ({', '.join(map(shown, names[:_SHOWN]))}{more})"


class _Source(NamedTuple):
    """The weights of one network in files, which may be an expert of a mixture."""

    name: str
    names: list[str]
    read: Callable[[], dict[str, Tensor]]
    expert: str | None = None
    recorded: Path | None = None  # the file, if metaopt wrote it


def _of_expert(sources: list[_Source], expert: str, path: Path) -> list[_Source]:
    """The networks without those of other experts."""
    found = {source.expert for source in sources} - {None}
    if expert not in found:
        names = ", ".join(sorted(map(str, found))) or "no experts"
        raise InvalidConfig(f"expert is {expert}, but {path} has {names}; leave it out, or give another folder")
    return [source for source in sources if source.expert in (None, expert)]


def _sources(path: Path) -> Iterator[_Source]:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = exists = False
    if not exists:
        raise InvalidConfig(f"initial_weights is {shown(str(path))}, which does not exist; give a file or a folder")
    if is_folder and is_trajectory(path):
        yield _recorded(path)
        return
    inside = sorted(each for each in path.iterdir() if each.is_dir() and is_trajectory(each)) if is_folder else []
    if inside:
        raise InvalidConfig(f"initial_weights is {path}, which holds trajectories; give one, such as {inside[0]}")
    for network in networks_in(Folder(path)):
        first = network.files[0]
        own = path.parent / first.name if not is_folder else path / first.name
        yield _recorded(own) if KEY in first.metadata else _foreign(network, path if is_folder else path.parent)


def _recorded(path: Path) -> _Source:
    """A file of metaopt, with the frozen weights beside a snapshot; adapters are merged."""
    tensors, facts = read_whole_network(path)
    adapter = facts.get("run", {}).get("adapter")
    weights = tensors if adapter is None else merged(tensors, adapter)
    file = Trajectory.open(path).snapshots[-1].path if path.is_dir() else path
    return _Source(path.name, [*weights], lambda: weights, recorded=file)


def _foreign(network: Network, root: Path) -> _Source:
    """A network in files of another program."""

    def read() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for each in network.files:
            path = root / each.name
            try:
                with safe_open(path, framework="pt") as file:
                    tensors |= {name: file.get_tensor(name) for name in each.tensors if name in network.tensors}
            except (SafetensorError, OSError) as error:
                raise FileFormatError(f"{path} is truncated or damaged ({error}); {COPY_AGAIN}") from error
        return tensors

    return _Source(network.name, [*network.tensors], read, network.expert)
