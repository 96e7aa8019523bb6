"""Growth seeds: branches inside a network that starts without them, and how a network with them is built again."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from ..targets.taps import check_taps
from ..trajectories import Trajectory
from ..weights.files import kind_of, read_facts
from .blueprints import blueprint_of

MODULE = "growth"
"""Name of the module of a grown network that holds its growth seeds."""


class GrowthSeed(nn.Module):
    """A branch h + α δ(h) at a tap, whose last layer begins with zeros: then it changes nothing, whatever α is.

    Args:
        delta: the network δ, as a blueprint builds it.

    Attributes:
        alpha: α, a buffer: the share of the branch [0 to 1].
    """

    alpha: Float[Tensor, ""]

    def __init__(self, delta: nn.Module) -> None:
        super().__init__()
        self.delta = delta
        self.register_buffer("alpha", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """The features with the branch, in the dtype of the features."""
        return features + (self.alpha * self.delta(features)).to(features.dtype)


class SeedFacts(NamedTuple):
    """What is needed to build a growth seed again, as JSON values.

    Attributes:
        tap: name of the tap.
        blueprint: topology and name of the blueprint, such as "cnn.conv".
        dim: size of the features.
        is_blended: whether it changes the outputs of the network.
    """

    tap: str
    blueprint: str
    dim: int
    is_blended: bool


class GrowthSeeds(nn.ModuleDict):
    """The growth seeds of a network. It returns what it is given: `nn.Sequential` calls all of its modules in turn."""

    def forward(self, features: Any) -> Any:
        """The features themselves."""
        return features


class _Hook:
    """Replaces the output of a tap. An object, not a closure: a copy of the network then calls the copied seed."""

    def __init__(self, seed: GrowthSeed) -> None:
        self.seed = seed

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self.seed(output[0]), *output[1:])
        return self.seed(output)


def insert(model: nn.Module, tap: str, seed: GrowthSeed) -> None:
    """Put a growth seed into a network. It changes no output before `blend`.

    Raises:
        UnknownName: the network has no such tap.
        InvalidConfig: the tap has a seed, or the network has an attribute `growth` of its own.
    """
    check_taps(model, [tap])
    held = getattr(model, MODULE, None)
    if held is None:
        model.add_module(MODULE, GrowthSeeds())
    elif not isinstance(held, GrowthSeeds):
        raise InvalidConfig(f"{type(model).__name__} has an attribute {MODULE} of its own; rename it")
    seeds = model.get_submodule(MODULE)
    if _key(tap) in seeds._modules:
        raise InvalidConfig(f"{tap} of {type(model).__name__} has a growth seed; remove it first")
    reference = next(model.parameters())
    seeds.add_module(_key(tap), seed.to(reference.device, reference.dtype).train(model.training))


def blend(model: nn.Module, tap: str) -> None:
    """Let the growth seed of a tap change the output of the network from now on; it does so by α."""
    model.get_submodule(tap).register_forward_hook(_Hook(seed_of(model, tap)))
    compile_again()


def remove(model: nn.Module, tap: str) -> None:
    """Remove the growth seed of a tap: the network is then as if it had never been there."""
    seed, seeds = seed_of(model, tap), model.get_submodule(MODULE)
    hooks = model.get_submodule(tap)._forward_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook) and hook.seed is seed]:
        del hooks[key]
    del seeds._modules[_key(tap)]
    if not seeds._modules:
        delattr(model, MODULE)
    compile_again()


def seed_of(model: nn.Module, tap: str) -> GrowthSeed:
    """The growth seed of a tap.

    Raises:
        InvalidConfig: it has none.
    """
    seeds = getattr(model, MODULE, None)
    seed = seeds._modules.get(_key(tap)) if isinstance(seeds, GrowthSeeds) else None
    if not isinstance(seed, GrowthSeed):
        raise InvalidConfig(f"{shown(tap)} of {type(model).__name__} has no growth seed")
    return seed


def parameters_of(model: nn.Module, tap: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of the growth seed of a tap, with their names in the network."""
    return list(seed_of(model, tap).named_parameters(prefix=f"{MODULE}.{_key(tap)}"))


def grow(model: nn.Module, seeds: Sequence[Mapping[str, Any]]) -> nn.Module:
    """Put growth seeds into a network as the facts of a snapshot describe them, with random weights.

    Args:
        model: the network without them, changed in place.
        seeds: the fields of `SeedFacts`.
    Returns: the network.
    Raises:
        UnknownName: there is no such tap or blueprint.
        InvalidConfig: a blueprint does not fit, or two seeds have the same tap.
        LayoutMismatch: the facts do not describe growth seeds.
    """
    for facts in seeds:
        try:
            described = SeedFacts(**facts)
            topology, _, name = described.blueprint.partition(".")
        except (TypeError, AttributeError) as error:
            raise LayoutMismatch(f"{shown(facts)} describes no growth seed: {error}") from error
        insert(model, described.tap, GrowthSeed(blueprint_of(topology, name).build(described.dim)))
        if described.is_blended:
            blend(model, described.tap)
    return model


def compile_again() -> None:
    """Let networks of `torch.compile` be compiled again at their next step: they notice no change of hooks.

    It is called where hooks change, so that nothing is compiled again in between.
    """
    if "torch._dynamo" in sys.modules:  # which takes seconds to import, and has compiled nothing before
        torch.compiler.reset()


def grow_as(model: nn.Module, path: Path | str) -> nn.Module:
    """Put the growth seeds of a recorded network into a new one, whose weights can then be loaded.

        from metaopt import Trajectory, get_target_model, load_model_weights
        from metaopt.growth import grow_as

        trajectory = Trajectory.open("trajectories/digits/seed_0")
        model = get_target_model("MLP", **trajectory.run["target_config"])
        load_model_weights(grow_as(model, trajectory.snapshots[-1].path), trajectory.snapshots[-1].path)

    Args:
        model: the network without growth seeds, changed in place.
        path: a snapshot, or a file of generated weights.
    Returns: the network.
    Raises:
        FileFormatError: the file is damaged, or of another kind.
        UnknownName, InvalidConfig, LayoutMismatch: as for `grow`.
    """
    path = Path(path)
    return grow(model, read_facts(path, kind_of(path)).get("growth", []))


def is_alpha(name: str) -> bool:
    """Whether a buffer of a network is α of a growth seed."""
    return name.startswith(f"{MODULE}.") and name.endswith(".alpha")


def fully_grown(model: nn.Module, seeds: Sequence[Mapping[str, Any]]) -> nn.Module:
    """A network with growth seeds that are part of it from the start: blended, and α = 1."""
    grow(model, seeds)
    for facts in seeds:
        seed_of(model, facts["tap"]).alpha.fill_(1.0)
    return model


def last_growth_seeds(folder: Path) -> list[dict[str, Any]]:
    """The growth seeds that were part of a recorded network at its end, as `grow` takes them; empty without any.

    Raises:
        TrajectoryError: there is no trajectory.
    """
    return [facts for facts in Trajectory.open(folder).segments[-1].growth if facts.get("is_blended")]


def _key(tap: str) -> str:
    return tap.replace(".", "-") or "-"  # names of modules have no dots, and are not empty, as that of the network is
