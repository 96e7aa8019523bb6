"""Writes the snapshots of one training run, each as it is taken."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Diverged
from ..weights.files import unique_state, write_tensors
from ..weights.layout import Layout

SNAPSHOT, FROZEN = "snapshot", "frozen"
"""Kinds of file in a trajectory's folder."""


class Recorder:
    """Turns a network in training into a trajectory on disk.

    A snapshot holds the trainable weights and the persistent buffers; weights that are frozen stand once beside the
    snapshots. The files hold nothing of the time or tracking server of the run: the same training writes the
    same bytes.

    Args:
        folder: the trajectory; made where missing.
        run: what was trained and how, as JSON, the same in every snapshot.
        layout: the trainable weights.
        segment: counts from zero; a network whose layout changes in training starts another one.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], layout: Layout, segment: int = 0) -> None:
        self.folder = folder
        self.layout = layout
        self._run = dict(run)
        self._segment = segment

    def record(self, model: nn.Module, step: int, epoch: int, losses: Mapping[str, float]) -> Path:
        """Write one snapshot, replacing an older one of the same step.

        Args:
            model: the network as it is now.
            step: training time [optimizer steps].
            epoch: finished epochs [count].
            losses: by name; what is not known yet is left out.
        Raises:
            Diverged: a weight is not finite; nothing is written.
            LayoutMismatch: the network has other trainable weights.
            StorageError: the disk is full or not writable; snapshots written before are untouched.
        """
        self.layout.check_model(model)
        frozen, changing = _divide(model)
        _check_finite(changing, step)
        if frozen and not (self.folder / f"{FROZEN}.safetensors").exists():
            write_tensors(self.folder / f"{FROZEN}.safetensors", frozen, FROZEN, {"run": self._run})
        facts = {
            "layout": self.layout.to_list(),
            "segment": self._segment,
            "step": step,
            "epoch": epoch,
            "losses": dict(losses),
            "run": self._run,
        }
        path = self.folder / f"step_{step:08d}.safetensors"
        write_tensors(path, changing, SNAPSHOT, facts)
        return path


def _divide(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The frozen weights, and everything else that a network keeps."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    state = unique_state(model)
    return (
        {name: tensor for name, tensor in state.items() if name in frozen},
        {name: tensor for name, tensor in state.items() if name not in frozen},
    )


def _check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise Diverged(f"{name} is no longer finite at step {step}")
