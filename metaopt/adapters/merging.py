"""Merges adapters into the matrices that they change: W + s B A, under the names of the network without adapters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import LayoutMismatch
from ..core.text import shown
from .lora import ADAPTER, AdapterFacts, described_adapters

_BASE = "base_layer."


def merged(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a network with adapters as those of one without, which gives the same outputs up to rounding.

        from metaopt import Trajectory, get_target_model
        from metaopt.adapters import insert_adapters, merged

        model = get_target_model("MLP", in_features=4, widths=(8,))
        facts = {"method": "lora", "modules": ["layers.1"], "rank": 2, "alpha": 4.0}
        weights = merged(insert_adapters(model, facts).state_dict(), facts)
        get_target_model("MLP", in_features=4, widths=(8,)).load_state_dict(weights)

    Args:
        tensors: all weights of the network, the frozen ones included.
        facts: the adapters, as `insert_adapters` takes them.
    Raises:
        LayoutMismatch: a tensor of an adapter is missing, or has another shape.
    """
    described = described_adapters(facts)
    found = {name: tensor for name, tensor in tensors.items() if ".lora_" not in name}
    for module, (down, up, base) in tensors_of(tensors, described).items():
        try:
            change = described.scale * (up.float() @ down.float())
            found[f"{module}.{_BASE}weight"] = (base.float() + change).to(base.dtype)
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(each.shape)) for each in (base, up, down))
            raise LayoutMismatch(f"the adapter of {shown(module)} has the shapes {shapes} of W, B and A") from error
    prefixes = tuple(f"{module}.{_BASE}" for module in described.modules)
    return {name.replace(_BASE, "") if name.startswith(prefixes) else name: tensor for name, tensor in found.items()}


class AdapterTensors(NamedTuple):
    """The tensors of the adapter of one matrix: A, B and the frozen W."""

    down: Tensor
    up: Tensor
    base: Tensor


def tensors_of(tensors: Mapping[str, Tensor], facts: AdapterFacts) -> dict[str, AdapterTensors]:
    """A, B and W of each adapted module, from all weights of the network.

    Raises:
        LayoutMismatch: one is missing.
    """
    return {module: AdapterTensors(*(_take(tensors, name) for name in names_of(module))) for module in facts.modules}


def names_of(module: str) -> tuple[str, str, str]:
    """The names of A, B and W in a network with adapters."""
    return f"{module}.lora_A.{ADAPTER}.weight", f"{module}.lora_B.{ADAPTER}.weight", f"{module}.{_BASE}weight"


def _take(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise LayoutMismatch(f"the weights have no {shown(name)}, which the adapters need")
    with torch.no_grad():
        return tensors[name].detach()
