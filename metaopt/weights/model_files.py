"""Saves and loads whole networks as safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import FileFormatError, LayoutMismatch
from ..core.text import shown
from .building import check_finite, check_state
from .files import kind_of, read_tensors, write_tensors

_KINDS = ("weights", "snapshot", "optimizer")


def save_model_weights(model: nn.Module, filepath: Path | str) -> None:
    """Save all weights and buffers of a network as safetensors; tied weights are stored once.

        from torch import nn
        from metaopt import load_model_weights, save_model_weights

        save_model_weights(nn.Linear(4, 2), "linear.safetensors")
        load_model_weights(nn.Linear(4, 2), "linear.safetensors")

    Raises:
        StorageError: the disk is full or not writable; an older file is kept.
    """
    write_tensors(Path(filepath), unique_state(model), "weights", {"model": type(model).__name__})


def load_model_weights(model: nn.Module, filepath: Path | str) -> None:
    """Load weights and buffers from a file of weights, a snapshot or generated weights.

        from metaopt import Trajectory, get_target_model, load_model_weights

        trajectory = Trajectory.open("trajectories/digits/seed_0")
        model = get_target_model("MLP", **trajectory.run["target_config"])
        load_model_weights(model, trajectory.snapshots[-1].path)

    Raises:
        FileFormatError: the file is damaged, is not safetensors, or is a checkpoint.
        LayoutMismatch: names, shapes or kinds of numbers differ from the network's, or a weight is not finite; the
            network is then unchanged.
    """
    path = Path(filepath)
    kind = kind_of(path)
    if kind not in _KINDS:
        raise FileFormatError(f"{path} is a {shown(kind)} file; expected one of {', '.join(_KINDS)}")
    tensors, facts = read_tensors(path, kind)
    try:
        copy_into(model, tensors)
    except LayoutMismatch as error:
        hint = _hint(model, facts)
        raise LayoutMismatch(f"{path} does not fit {type(model).__name__}: {error}{hint}") from error


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy all weights and buffers into a network, in its precision and on its device.

    Raises:
        LayoutMismatch: names, shapes or kinds of numbers differ from the network's, or a weight is not finite; the
            network is then unchanged.
    """
    state = unique_state(model)
    check_state(type(model).__name__, state, tensors)
    check_finite({name: tensors[name] for name, _ in model.named_parameters() if name in tensors})
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[name])


def _hint(model: nn.Module, facts: Mapping[str, Any]) -> str:
    """What to do before weights of another network are loaded."""
    if facts.get("growth") and not hasattr(model, "growth"):
        return "; the file is of a network that grew: call metaopt.growth.grow_as(model, file) before"
    if "adapter" in facts.get("run", {}) and not any(".lora_" in name for name, _ in model.named_parameters()):
        return "; the file is of a network with adapters: call metaopt.adapters.adapt_as(model, file) before"
    return ""


def unique_state(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and persistent buffers by name; a tensor with several names is included once.

    Raises:
        LayoutMismatch: a module has extra state that is no tensor.
    """
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise LayoutMismatch(
                f"{name} of {type(model).__name__} is a {type(tensor).__name__}, the extra state of a module "
                "(get_extra_state); files of weights contain tensors only. Keep it in a buffer"
            )
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach()
    return state
