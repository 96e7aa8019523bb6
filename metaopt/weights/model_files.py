"""Saves and loads whole networks as safetensors files."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import LayoutMismatch
from ..core.text import shown
from .files import kind_of, read_tensors, write_tensors


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
        FileFormatError: the file is damaged or is not safetensors.
        LayoutMismatch: names or shapes differ from the network's; the network is then unchanged.
    """
    path = Path(filepath)
    tensors, _ = read_tensors(path, kind_of(path))
    state = unique_state(model)
    for name in [*state, *tensors]:
        if name not in state or name not in tensors:
            where = "the file" if name not in tensors else type(model).__name__
            raise LayoutMismatch(f"{path} does not fit {type(model).__name__}: {where} has no {shown(name)}")
        if state[name].shape != tensors[name].shape:
            raise LayoutMismatch(
                f"{path} does not fit {type(model).__name__}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the network expects {tuple(state[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[name])


def unique_state(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and persistent buffers by name; a tensor with several names is included once."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach()
    return state
