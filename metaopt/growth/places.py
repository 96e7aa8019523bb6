"""Where a network can grow: taps whose features have a topology for which there are blueprints."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import InvalidConfig
from ..core.rng import isolated
from ..targets.hosts import Host
from ..targets.taps import check_taps, read_taps, tapped, taps
from ..tasks.measure import in_evaluation_mode
from .blueprints import TOPOLOGIES


class Place(NamedTuple):
    """A tap at which a branch can grow: its name, the topology of its features, and their size."""

    tap: str
    topology: str
    dim: int


def places(model: nn.Module, inputs: Any, names: Sequence[str] = ()) -> list[Place]:
    """Where a network can grow, in the order of its forward pass.

        import torch
        from metaopt import get_target_model
        from metaopt.growth import places

        places(get_target_model("HostCNN"), torch.zeros(2, 3, 32, 32))  # [Place("blocks.1", "cnn", 32)]

    Args:
        inputs: example inputs, two or more.
        names: names of the taps; by default the injection points of a host.
    Raises:
        UnknownName: the network has no such tap; the message lists the nearest names.
        InvalidConfig: the network is no host and no taps are given; or the features of a tap have no known topology.
    """
    if not names:
        names = _injection_points(model)
    check_taps(model, names)
    calls: Counter[str] = Counter()
    with in_evaluation_mode(model), isolated(), torch.no_grad(), tapped(model, {n: _counter(n, calls) for n in names}):
        features = read_taps(model, inputs, names)
    known = {tap.name: tap for tap in taps(model)}
    found = []
    for name, tensor in features.items():
        tap = known[name]
        if not isinstance(tensor, Tensor):
            raise InvalidConfig(f"{name} returns {type(tensor).__name__}; expected a tensor, or a tuple that begins so")
        if calls[name] > 1:
            raise InvalidConfig(f"{name} runs {calls[name]} times in a forward pass; expected a tap that runs once")
        topology = _topology(tensor.dim(), tap.dim)
        if topology is None:
            shapes = "; ".join(f"{each}: {shape}" for each, shape in TOPOLOGIES.items())
            raise InvalidConfig(
                f"the features at {name} have the shape {list(tensor.shape)} with their size in dimension {tap.dim}; "
                f"expected one of {shapes}. Choose another tap"
            )
        found.append(Place(name, topology, tensor.shape[tap.dim]))
    if missing := [name for name in names if name not in features]:
        raise InvalidConfig(f"a forward pass of {type(model).__name__} does not reach {', '.join(missing)}")
    return found


def _counter(name: str, calls: Counter[str]) -> Callable[[Tensor], Tensor]:
    """Counts how often a tap runs, and returns its output."""

    def count(output: Tensor) -> Tensor:
        calls[name] += 1
        return output

    return count


def _injection_points(model: nn.Module) -> list[str]:
    if isinstance(model, Host):
        return [*model.injection_points]
    blocks = [tap.name for tap in taps(model) if tap.kind in ("block", "layer")]
    raise InvalidConfig(
        f"{type(model).__name__} does not state where it can grow; name some of its taps: {', '.join(blocks)}"
    )


def _topology(dimensions: int, dim: int) -> str | None:
    if (dimensions, dim) == (4, 1):
        return "cnn"
    if dim in (-1, dimensions - 1):
        return {3: "transformer", 2: "vector"}.get(dimensions)
    return None
