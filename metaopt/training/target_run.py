"""One target in training: its network, its base optimizer, and how far it is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..targets import get_target_model
from ..tasks import Task
from ..weights.layout import Layout
from .checkpoint import expect_same, load_checkpoint, save_checkpoint
from .loop import base_optimizer, train_steps
from .randomness import random_states, restore_random_states, seed_all


class TargetRun:
    """A training that its facts, the data and the number of steps determine: the same ones give the same weights.

    Building it seeds all random generators of the process.

    Args:
        facts: what is trained and how ("task", "target_model", "target_config", "base_optimizer",
            "base_optimizer_options", "lr", "batch_size", "seed", …), as every snapshot states them.
        task: the task that the facts name.
        device: where to train.
    Raises:
        UnknownName, InvalidConfig: the facts name or configure something that cannot be.
    """

    def __init__(self, facts: Mapping[str, Any], task: Task, device: torch.device) -> None:
        self.facts = facts
        self.task = task
        self.device = device
        seed_all(facts["seed"])
        self.model = get_target_model(facts["target_model"], **facts["target_config"]).to(device)
        self.layout = Layout.of(self.model)
        self.optimizer = base_optimizer(
            facts["base_optimizer"],
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            facts["lr"],
            facts["base_optimizer_options"],
        )
        self.epoch = 0
        self.step = 0

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{self.facts['target_model']} on {self.facts['task']}, random seed {self.facts['seed']}"

    def train_epoch(self) -> Iterator[float]:
        """Train for one epoch, giving the loss of each step once it is done.

        Raises:
            Diverged: a loss is not finite.
        """
        batches = self.task.batches(self.facts["batch_size"], self.facts["seed"], self.epoch)
        for loss in train_steps(self.model, self.optimizer, self.task, batches, self.device):
            self.step += 1
            yield loss
        self.epoch += 1

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint; between epochs only, because the order of batches depends on the epoch alone.

        Args:
            settings: what else must be the same on resuming.
        Raises:
            StorageError: the disk is full; an older checkpoint at that place is kept.
        """
        state = {
            "model": self.model.state_dict(),
            "base_optimizer": self.optimizer.state_dict(),
            "random": random_states(),
            "epoch": self.epoch,
            "step": self.step,
        }
        save_checkpoint(path, state, {"run": dict(self.facts), **settings})

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, to the same bits as without a stop.

        Raises:
            FileFormatError: it is damaged.
            CheckpointError: it belongs to another training; the message names the field that differs.
        """
        state, facts = load_checkpoint(path)
        expect_same(facts, {"run": self.facts, **settings}, path)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["base_optimizer"])
            restore_random_states(state["random"])
            self.epoch, self.step = state["epoch"], state["step"]
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {self.title} ({error}); start it with --overwrite"
            ) from error
