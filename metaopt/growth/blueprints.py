"""Blueprints: what can grow. A new one is a decorated function, a line in the table, or an entry point of a package.

`BLUEPRINTS` names the module that defines each of metaopt's own. The actions of a controller follow from it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import Registry, suggest
from ..core.text import shown

TOPOLOGIES: Mapping[str, str] = {
    "cnn": "[batch, dim, height, width]",
    "transformer": "[batch, tokens, dim]",
    "vector": "[batch, dim]",
}
"""Shapes of the features into which a blueprint fits, by the name of its topology."""

_SIZES = (5, 4, 3)  # of the dimensions of an example that are neither `dim` nor the batch


@dataclass(frozen=True)
class Blueprint:
    """A network δ that can grow at a tap whose features h become h + α δ(h).

        from metaopt.growth import blueprint_of

        conv = blueprint_of("cnn", "conv")
        assert conv.estimate(32) == conv.count(32)
        delta = conv.build(32)  # [batch, 32, height, width] → the same shape; zeros at first

    Args:
        name: its name, unique in its topology.
        topology: a name in `TOPOLOGIES`.
        factory: builds the network for features of a size.
        estimate: how many weights it has at a size, without building it [count].
        description: what it is, for lists and the page on growth.
    Raises:
        InvalidConfig: there is no such topology, or the name is not an identifier.
    """

    name: str
    topology: str
    factory: Callable[[int], nn.Module]
    estimate: Callable[[int], int]
    description: str

    def __post_init__(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise InvalidConfig(
                f"the topology of the blueprint {shown(self.name)} is {shown(self.topology)}: "
                f"{suggest(self.topology, TOPOLOGIES)}"
            )
        if not self.name.isidentifier():
            raise InvalidConfig(f"a blueprint has the name {shown(self.name)}; expected letters, digits and _")

    @property
    def key(self) -> str:
        """Topology and name, such as "cnn.conv"."""
        return f"{self.topology}.{self.name}"

    def build(self, dim: int) -> nn.Module:
        """Build the network with random weights, and set its last layer to zero, so that it returns zeros.

        Raises:
            InvalidConfig: it does not fit features of this size, changes their shape, has no layer with weights, or
                returns something else than zeros although its last layer is zero.
        """
        if dim < 1:
            raise InvalidConfig(f"the blueprint {self.key} for features of size {dim}; expected 1 or more")
        try:
            delta = self.factory(dim)
            for parameter in last_layer(delta).parameters(recurse=False):
                nn.init.zeros_(parameter)
            self._check(delta, dim)
        except InvalidConfig:
            raise
        except Exception as error:  # a blueprint is the code of somebody else
            raise InvalidConfig(f"the blueprint {self.key} does not fit features of size {dim}: {error}") from error
        return delta

    def count(self, dim: int) -> int:
        """How many weights it has at a size, counted in the network itself [count]."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.factory(dim).parameters())

    def example(self, dim: int) -> Tensor:
        """Features of its topology, no two of which are the same: two examples."""
        shape = TOPOLOGIES[self.topology].strip("[]").split(", ")
        others = iter(_SIZES)
        sizes = [2 if name == "batch" else dim if name == "dim" else next(others) for name in shape]
        return torch.arange(math.prod(sizes)).sin().reshape(sizes)

    def _check(self, delta: nn.Module, dim: int) -> None:
        features = self.example(dim)
        is_training = delta.training
        with torch.no_grad():
            outputs = delta.eval()(features)
        delta.train(is_training)
        if not isinstance(outputs, Tensor) or outputs.shape != features.shape:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InvalidConfig(f"the blueprint {self.key} maps {tuple(features.shape)} to {found}; expected its shape")
        if not outputs.is_meta and outputs.any():
            raise InvalidConfig(
                f"the blueprint {self.key} returns something although its last layer is zero; expected a network whose "
                "last layer is the last one in the order of definition, and adds nothing to its output"
            )


def last_layer(delta: nn.Module) -> nn.Module:
    """The last module, in the order of definition, that has weights of its own.

    Raises:
        InvalidConfig: no module has.
    """
    layers = [module for module in delta.modules() if any(True for _ in module.parameters(recurse=False))]
    if not layers:
        raise InvalidConfig(f"{type(delta).__name__} has no weights; expected a layer that can be trained")
    return layers[-1]


BLUEPRINTS = Registry(
    "blueprint",
    "metaopt.blueprints",
    {
        "cnn.attention": "metaopt.growth.cnn:squeeze_excite",
        "cnn.conv": "metaopt.growth.cnn:conv",
        "cnn.depthwise": "metaopt.growth.cnn:depthwise",
        "cnn.norm": "metaopt.growth.cnn:norm",
        "transformer.attention": "metaopt.growth.transformer:causal_attention",
        "transformer.lora": "metaopt.growth.transformer:lora",
        "transformer.mlp": "metaopt.growth.transformer:mlp",
        "transformer.norm": "metaopt.growth.transformer:norm",
        "vector.lora": "metaopt.growth.vector:lora",
        "vector.mlp": "metaopt.growth.vector:mlp",
        "vector.norm": "metaopt.growth.vector:norm",
    },
)
"""Blueprints by topology and name, including those of installed plug-ins."""

_DECORATED: dict[str, Blueprint] = {}


def blueprint(
    topology: str, name: str, estimate: Callable[[int], int], description: str
) -> Callable[[Callable[[int], nn.Module]], Blueprint]:
    """Make a blueprint of a function that builds a network. It is found by its name in this process at once.

        from torch import nn
        from metaopt.growth import blueprint, blueprints_of

        @blueprint("cnn", "wide", estimate=lambda dim: 27 * dim * dim + 4 * dim, description="Two 3×3 convolutions.")
        def wide(dim: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(dim, 3 * dim, 1), nn.ReLU(), nn.Conv2d(3 * dim, dim, 3, padding=1))

        assert "wide" in [each.name for each in blueprints_of("cnn")]

    Raises:
        InvalidConfig: there is no such topology, the name is not an identifier, or metaopt's own blueprint has it.
    """

    def decorate(factory: Callable[[int], nn.Module]) -> Blueprint:
        made = Blueprint(name, topology, factory, estimate, description)
        if made.key in BLUEPRINTS.table and not factory.__module__.startswith(f"{__package__}."):
            raise InvalidConfig(f"a blueprint {made.key} exists; choose another name")
        _DECORATED[made.key] = made
        return made

    return decorate


def blueprint_of(topology: str, name: str) -> Blueprint:
    """The blueprint of a name.

    Raises:
        UnknownName: there is none of this name in this topology; the message lists the nearest names, and the topology
            that has it.
    """
    key = f"{topology}.{name}"
    if key in BLUEPRINTS.table or key in _DECORATED:  # looking for installed plug-ins takes milliseconds
        return _blueprint_at(key)
    names = _names(topology)
    if name not in names:
        others = [other for other in TOPOLOGIES if other != topology and name in _names(other)]
        hint = f"{name} is a blueprint of {', '.join(others)}; " if others else ""
        raise UnknownName(f"no blueprint {shown(name)} for {topology}: {hint}{suggest(name, names)}")
    return _blueprint_at(key)


def blueprints_of(topology: str) -> list[Blueprint]:
    """All blueprints of a topology, sorted by name.

    Raises:
        InvalidConfig: there is no such topology.
    """
    if topology not in TOPOLOGIES:
        raise InvalidConfig(f"the topology is {shown(topology)}: {suggest(topology, TOPOLOGIES)}")
    return [_blueprint_at(f"{topology}.{name}") for name in _names(topology)]


def _blueprint_at(key: str) -> Blueprint:
    topology, _, name = key.partition(".")
    found = _DECORATED.get(key) or BLUEPRINTS.get(key)
    if not isinstance(found, Blueprint) or found.key != key:
        raise InvalidConfig(
            f"the blueprint {key} of {BLUEPRINTS.origin(key)} is {shown(found)}; expected a function decorated with "
            f"@blueprint({topology!r}, {name!r}, …): correct the entry point of that package"
        )
    return found


def _names(topology: str) -> list[str]:
    keys = {*BLUEPRINTS.names(), *_DECORATED}
    return sorted(key.partition(".")[2] for key in keys if key.partition(".")[0] == topology)
