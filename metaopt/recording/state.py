"""One target in training: its network, its base optimizer, and how far it is."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError, InvalidConfig
from ..core.rng import random_states, restore_random_states, seed_all
from ..optimizers import build_optimizer
from ..targets import get_target_model
from ..tasks import Batch, Task
from ..trajectories.checkpoint import expect_same, load_checkpoint, save_checkpoint
from ..weights.averaging import ExponentialMovingAverage
from ..weights.layout import Layout, trainable
from .training import check_loss, train_step


class TargetTrainingState:
    """A training that its facts, the data and the number of steps determine: the same ones give the same weights.

    Building it seeds all random generators of the process.

    Args:
        facts: what is trained and how ("task", "target_model", "target_config", "base_optimizer",
            "base_optimizer_options", "lr", "batch_size", "seed", "space", "averaging"), as every snapshot states them.
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
        _restrict(self.model, facts.get("space"))
        self.layout = Layout.of(self.model)
        self._average = ExponentialMovingAverage(facts.get("averaging", 0.0))
        parameters = [parameter for _, parameter in trainable(self.model)]
        self.optimizer = build_optimizer(
            facts["base_optimizer"], parameters, facts["lr"], facts["base_optimizer_options"]
        )
        self.loss_changes = LossChanges()
        self.epoch = 0
        self.step = 0

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{self.facts['target_model']} on {self.facts['task']}, random seed {self.facts['seed']}"

    def epoch_steps(self) -> Iterator["Step"]:
        """The steps of the next epoch, each to be taken before the next is asked for."""
        for batch in self.task.batches(self.facts["batch_size"], self.facts["seed"], self.epoch):
            yield Step(self, batch)
        self.epoch += 1

    def take_in(self, loss: float) -> None:
        """Count a step that was taken, with the loss before it.

        Raises:
            Diverged: the loss is not finite.
        """
        self.step += 1
        check_loss(loss)
        self.loss_changes.add(loss)
        if self._average.decay:
            self._average.update([parameter for _, parameter in trainable(self.model)])

    def averaged(self) -> dict[str, Tensor]:
        """The running average of the trainable weights, by name; empty where there is none, or no step yet."""
        names = [name for name, _ in trainable(self.model)] if self._average.updates else []
        return dict(zip(names, self._average.tensors, strict=True))

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
            "loss_changes": self.loss_changes.state(),
            "average": self._average.state_dict(),
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
            self.loss_changes = LossChanges(*state["loss_changes"])
            self._average.load_state_dict(state["average"], [parameter for _, parameter in trainable(self.model)])
            self.epoch, self.step = state["epoch"], state["step"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {self.title} ({error}); start it with --overwrite"
            ) from error


class Step(NamedTuple):
    """A step that a target wants to take."""

    run: TargetTrainingState
    batch: Batch

    def take(self) -> float:
        """Train on the batch; its loss before the step."""
        run = self.run
        return train_step(run.model, run.optimizer, run.task, self.batch, run.device)


def _restrict(model: nn.Module, space: str | None) -> None:
    """Freeze the weights whose names do not match."""
    if space is None:
        return
    names = [name for name, _ in trainable(model)]
    if not any(re.search(space, name) for name in names):
        raise InvalidConfig(f"space is {space!r}, which matches no weights of {type(model).__name__}: {names}")
    for name, parameter in trainable(model):
        parameter.requires_grad_(re.search(space, name) is not None)


class LossChanges:
    """The standard deviation of the changes of a loss, one number at a time.

    Args:
        last: the loss before.
        count: changes so far.
        mean: their mean.
        squares: sum of their squared distances from it.
    """

    def __init__(self, last: float | None = None, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self._last, self._count, self._mean, self._squares = last, count, mean, squares

    def add(self, loss: float) -> None:
        """Take in the loss of the next step (Welford 1962: stable, in one pass)."""
        if self._last is not None:
            self._count += 1
            distance = loss - self._last - self._mean
            self._mean += distance / self._count
            self._squares += distance * (loss - self._last - self._mean)
        self._last = loss

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the changes; None before the second one."""
        return math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else None

    def state(self) -> list[float | None]:
        """What the constructor takes to go on from here."""
        return [self._last, self._count, self._mean, self._squares]
