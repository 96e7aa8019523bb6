"""The trainings behind the claims about adapters, in small: a base, an encoder that learns words, and adapters.

Each is a recording of `metaopt train-target` on captioned shapes with the network `TextToVideo`. Losses are those of
the validation split, whose noise and times are fixed.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaopt import Trajectory, get_target_model, load_task
from metaopt.adapters import adapt_as, adapters_of
from metaopt.core.rng import generator
from metaopt.core.tracker import SilentTracker
from metaopt.diffusion.flow import pack, unpack
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.tasks import Batch, Task
from metaopt.tasks.measure import mean_loss
from metaopt.trajectories import read_whole_network
from metaopt.weights.files import write_tensors
from metaopt.weights.model_files import copy_into

TASK = "captioned-shapes"
DRIFT = 1.0
"""Size of the noise that changes each matrix of the encoder, relative to its own."""
_BASE_OPTIMIZER: Mapping[str, Any] = {
    "base_optimizer": "AdamWScheduleFree",
    "base_optimizer_options": {"warmup_steps": 50, "betas": [0.95, 0.99]},
}


@dataclass(frozen=True)
class Sizes:
    """Lengths of the trainings [epochs], their learning rates, the rank of adapters, and the steps of an evaluation."""

    base_epochs: int = 18
    base_lr: float = 3e-2
    encoder_epochs: int = 8
    encoder_lr: float = 1.5e-3
    adapter_epochs: int = 4
    adapter_lr: float = 5e-3
    rank: int = 4
    batch_size: int = 16
    nowcast_steps: int = 160


class Trainings:
    """Trainings of one random seed, in a folder.

    Args:
        folder: holds the recordings; those that are there are used again.
        seed: random seed of initial weights and batches.
    """

    def __init__(self, folder: Path, seed: int, sizes: Sizes) -> None:
        self.folder, self.seed, self.sizes = folder, seed, sizes
        self.tasks: dict[str, Task] = {words: load_task(TASK, **task_options(words)) for words in ("old", "new")}

    def base(self) -> Path:
        """A network that has learned the old words."""
        return self._record("base", **_BASE_OPTIMIZER, epochs=self.sizes.base_epochs, lr=self.sizes.base_lr)

    def encoder(self, base: Path) -> Path:
        """The same network after its encoder has also learned the new words."""
        epochs, lr = self.sizes.encoder_epochs, self.sizes.encoder_lr
        fixed: dict[str, Any] = {"mode": "encoder-finetune", "words": "all", "averaging": 0.98}
        return self._record("encoder", epochs=epochs, lr=lr, initial_weights=base, **fixed)

    def adapter(self, name: str, base: Path, **options: Any) -> Path:
        """Adapters of a network, trained on old words."""
        fixed: dict[str, Any] = {
            "mode": "adapter",
            "adapter": "lora",
            "rank": self.sizes.rank,
            "alpha": float(self.sizes.rank),
        }
        epochs, lr = self.sizes.adapter_epochs, self.sizes.adapter_lr
        return self._record(name, epochs=epochs, lr=lr, initial_weights=base, **fixed, **options)

    def drifted(self, base: Path) -> Path:
        """A file of the weights of a network whose encoder has changed: noise is added to each of its matrices."""
        weights, random = read_whole_network(base)[0], generator(self.seed, 7)
        for name, tensor in weights.items():
            if name.startswith("encoder.") and tensor.ndim == 2:
                noise = torch.randn(tensor.shape, generator=random)
                weights[name] = tensor + DRIFT * noise * tensor.norm() / noise.norm()
        path = self.folder / f"drifted_{self.seed}.safetensors"
        write_tensors(path, weights, "weights", {"model": "TextToVideo"})
        return path

    def loss(self, network: nn.Module, words: str = "old", *, shuffled: bool = False) -> float:
        """The validation loss of a network; with the captions of other videos if `shuffled`."""
        task = self.tasks[words]
        examples = task.splits["validation"][:]
        if shuffled:
            noisy = unpack(examples.inputs, task.model_facts["video_shape"])
            examples = Batch(pack(noisy._replace(tokens=noisy.tokens.roll(1, 0))), examples.labels)
        return mean_loss(network, task, [examples])

    def _record(self, name: str, words: str = "old", **options: Any) -> Path:
        config = TrainTargetConfig(**{
            "run_name": f"{name}_{self.seed}",
            "task": TASK,
            "task_options": task_options(words),
            "target_model": "TextToVideo",
            "batch_size": self.sizes.batch_size,
            "seed": self.seed,
            "trajectory_dir": self.folder / "trajectories",
            "checkpoint_dir": self.folder / "checkpoints",
            "checkpoint_every": 1000,
            "keep_last": 2,
            "threads": 1,
            **options,
        })  # fmt: skip
        folder = config.trajectory_dir / config.run_folder
        return folder if (folder / "task.json").exists() else train_targets(config, SilentTracker())[0]


def task_options(words: str) -> dict[str, Any]:
    """Options of the task. No caption is left empty: a network that knows empty ones takes unknown words for them."""
    return {"words": words, "empty": 0.0}


def without_change(adapted: nn.Module) -> nn.Module:
    """The same network with adapters that change nothing yet."""
    first = deepcopy(adapted)
    for each in adapters_of(first):
        nn.init.zeros_(each.up)
    return first


def network_of(weights: Path) -> nn.Module:
    """The network of a recording, or of a file of weights, in evaluation mode."""
    tensors, _ = read_whole_network(weights)
    model = get_target_model("TextToVideo", load_task(TASK).model_facts)
    if weights.is_dir():
        adapt_as(model, Trajectory.open(weights).snapshots[-1].path)
    copy_into(model, tensors)
    return model.eval()
