"""Training state of one target: its network, its base optimizer, and its counters of epochs and steps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..adapters.budget import within_budget
from ..adapters.fine_tuning import FineTuning, prepared
from ..core.errors import CheckpointError
from ..core.rng import generator, random_states, restore_random_states, seed_all
from ..growth.driver import Driver
from ..growth.growth_seed import fully_grown, last_growth_seeds
from ..growth.loading import driver_for
from ..nested.carried_memory import carried_memories, load_carried_memories
from ..nested.levels import observe_levels
from ..optimizers import optimizer_for
from ..optimizers.state import check_optimizer_state
from ..targets import get_target_model, target_config
from ..tasks import Batch, Task, task_config
from ..trajectories import Trajectory
from ..trajectories.checkpoint import expect_same, load_checkpoint, save_checkpoint
from ..trajectories.ledger_entry import TrainingFacts
from ..trajectories.origin import Parent
from ..trajectories.parents import trajectory_parent
from ..weights.averaging import ExponentialMovingAverage
from ..weights.building import check_finite, check_memory, check_state
from ..weights.facts import COUNT, MAPPING, Rule, check_fields, is_number
from ..weights.layout import Layout
from ..weights.selection import trainable
from .config import TrainTargetConfig
from .loss_changes import LossChanges
from .training import check_loss, train_step

_STATISTICS = Rule(
    "four numbers or null",
    lambda value: isinstance(value, list) and len(value) == 4 and all(x is None or is_number(x) for x in value),
)
_NUMBERS = Rule("a list of numbers", lambda value: isinstance(value, list) and all(map(is_number, value)))
_AVERAGE = Rule("an average", MAPPING.holds, fields={"updates": COUNT})
_STATE = {
    "model": MAPPING,
    "base_optimizer": MAPPING,
    "random": MAPPING,
    "loss_changes": _STATISTICS,
    "average": _AVERAGE,
    "epoch": COUNT,
    "epoch_losses": _NUMBERS.optional,  # absent from checkpoints of metaopt 0.1, which are all written between epochs
    "step": COUNT,
    "last_snapshot": COUNT.optional,
}
"""The state in a checkpoint."""


class TargetTrainingState:
    """A network in training. The facts, the data and the number of steps determine its weights.

    `epoch` counts the finished epochs, `step` the steps. `epoch_losses` are the losses of the steps of the present
    epoch, and `last_snapshot` is the step of the latest snapshot.

    The constructor seeds all random generators of the process, and draws the initial weights on the CPU.

    Args:
        tuning: the initial weights and the budget of a fine-tuning, whose further facts are among the facts.
        facts: network and hyperparameters ("task", "target_model", "target_config", "base_optimizer",
            "base_optimizer_options", "lr", "batch_size", "seed", "space", "averaging"), as every snapshot states them.
        task: the task that the facts name.
        device: the device to train on.
        total_steps: steps of the whole training, for a network that grows [steps].
        parents: what the network is made from, apart from a controller and what it uses.
    Raises:
        UnknownName, InvalidConfig: the facts contain an unknown name or an invalid value.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        task: Task,
        device: torch.device,
        total_steps: int = 0,
        tuning: FineTuning | None = None,
        parents: Sequence[Parent] = (),
    ) -> None:
        self.facts = facts
        self.task = task
        self.device = device
        seed_all(facts["seed"])
        model = _network(facts)
        self.model = (prepared(model, facts) if tuning is None else tuning.prepare(model)).to(device)
        self._ema = ExponentialMovingAverage(facts.get("averaging", 0.0))
        self.optimizer = optimizer_for(
            self.model, facts["base_optimizer"], facts["lr"], facts["base_optimizer_options"]
        )
        self.tuning = tuning
        self.budget = None if tuning is None else tuning.limit(self.model, self.optimizer)
        self.update_norms = observe_levels(self.optimizer)
        self.driver = self._driver(total_steps)
        self.parents = (*parents, *(() if self.driver is None else self.driver.parents))
        self.segment = 0
        self.loss_changes = LossChanges()
        self.epoch_losses: list[float] = []
        self.epoch = 0
        self.step = 0
        self.last_snapshot = 0

    def _driver(self, total_steps: int) -> Driver | None:
        """What lets the network grow; None if it does not. It may wrap the optimizer."""
        if (growth := self.facts.get("growth")) is None:
            return None
        controller, options, seed = growth["controller"], growth["options"], self.facts["seed"]
        driver = driver_for(self.model, self.optimizer, self.task, controller, options, seed, total_steps)
        self.optimizer = driver.growth.optimizer
        return driver

    @property
    def layout(self) -> Layout:
        """The layout of the trainable weights."""
        return Layout.of(self.model)

    @property
    def growth_seeds(self) -> list[dict[str, Any]]:
        """The growth seeds of the network, as snapshots state them."""
        own = [] if self.driver is None else self.driver.growth.facts
        return [*self.facts.get("grown_as", []), *own]

    @classmethod
    def from_config(
        cls, config: TrainTargetConfig, task: Task, device: torch.device, tuning: FineTuning | None = None
    ) -> Self:
        """Create the training state of one run before its first step.

        Args:
            device: the device to train on.
            tuning: that of another run of the same recording, so that its initial weights are not read again.
        Raises:
            UnknownName, InvalidConfig: the configuration contains an unknown name, an invalid value, or a network that
                is too large for the memory of this machine.
        """
        network = target_config(config.target_model, task.model_facts, config.target_options)
        check_memory(lambda: get_target_model(config.target_model, **network), config.target_options, copies=2)
        facts: dict[str, Any] = {
            "task": config.task,
            "task_config": task_config(config.task, config.task_options, config.data_dir),
            "target_model": config.target_model,
            "target_config": network,
            "base_optimizer": config.base_optimizer,
            "base_optimizer_options": dict(config.base_optimizer_options),
            "lr": config.lr.at(float(torch.rand((), dtype=torch.float64, generator=generator(config.seed)))),
            "batch_size": config.batch_size,
            "seed": config.seed,
            "averaging": config.averaging,
        }
        if config.controller is not None:
            facts["growth"] = {"controller": config.controller, "options": dict(config.growth_options)}
        parents: list[Parent] = []
        if config.grown_as is not None:
            own = config.grown_as / f"seed_{config.seed}"
            grown = Trajectory.open(own if own.is_dir() else config.grown_as)
            facts["grown_as"] = last_growth_seeds(grown.folder)
            parents.append(trajectory_parent(grown))
        if tuning is None or config.grown_as is not None:  # grown networks differ between random seeds
            tuning = FineTuning(config, partial(_network, facts))
        parents += tuning.parents
        return cls({**facts, **tuning.facts}, task, device, config.step_count(task), tuning, parents)

    @property
    def title(self) -> str:
        """Network, task and random seed, human-readable."""
        return f"{self.facts['target_model']} on {self.facts['task']}, random seed {self.facts['seed']}"

    def epoch_steps(self) -> Iterator["Step"]:
        """The steps of the epoch that are left. The caller takes each step before it requests the next one."""
        batches = self.task.batches(self.facts["batch_size"], self.facts["seed"], self.epoch)
        for batch in islice(batches, len(self.epoch_losses), None):
            yield Step(self, batch)
        self.epoch += 1
        self.epoch_losses = []

    def after_step(self, loss: float) -> bool:
        """Update counters, loss statistics and the EMA after a step, and let the network grow.

        Args:
            loss: training loss before the step.
        Returns: whether the network has other growth seeds now, so that a segment of the trajectory starts.
        Raises:
            Diverged: the loss is not finite, and no growth seed can be removed for that.
        """
        self.step += 1
        self.epoch_losses.append(loss)
        seeds = self.growth_seeds
        if self.driver is not None:
            self.driver.after_step(self.step, loss, self.loss_changes.standard_deviation or 0.0)
        else:
            check_loss(loss)
        if math.isfinite(loss):
            self.loss_changes.add(loss)
        has_changed = self.growth_seeds != seeds
        if has_changed:
            self.segment += 1
            self._ema.reset()
        if self._ema.decay:
            self._ema.update([parameter for _, parameter in trainable(self.model)])
        return has_changed

    def recorded_weights(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a snapshot has in place of the trainable weights, by name: their EMA, within the delta budget.

        An average of A and one of B may change a matrix more than each of the averaged ones does, and so may rounding.
        Empty where the weights of the network are recorded as they are.

        Args:
            dtype: of the snapshot.
        """
        names = [name for name, _ in trainable(self.model)]
        averages = dict(zip(names, self._ema.tensors, strict=True)) if self._ema.updates else {}
        if self.budget is None or not (averages or dtype.itemsize < 4):
            return averages
        own = dict(self.model.named_parameters())
        rounded = {name: averages.get(name, own[name]).detach().to(dtype) for name in names}
        limited = within_budget({**own, **rounded}, self.facts)
        return {name: limited[name] for name in names}

    def save(self, path: Path, settings: Mapping[str, Any], about: TrainingFacts | None = None) -> None:
        """Write a checkpoint, after any step.

        Args:
            settings: further values that must be equal when the run is resumed.
            about: what the sidecar of the checkpoint states; None writes none.
        Raises:
            StorageError: the disk is full; an older checkpoint at this path is kept.
        """
        state = {
            "model": self.model.state_dict(),
            "carried_memories": carried_memories(self.model),
            "base_optimizer": self.optimizer.state_dict(),
            "random": random_states(),
            "growth": None if self.driver is None else self.driver.state_dict(),
            "segment": self.segment,
            "loss_changes": self.loss_changes.state(),
            "average": self._ema.state_dict(),
            "update_norms": None if self.update_norms is None else self.update_norms.state_dict(),
            "epoch": self.epoch,
            "epoch_losses": self.epoch_losses,
            "step": self.step,
            "last_snapshot": self.last_snapshot,
        }
        save_checkpoint(path, state, {"run": dict(self.facts), **settings}, about)

    def expect_own(self, facts: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
        """Check that the facts of a file are of this training.

        An option of the task that is newer than the file has its default in it.

        Raises:
            CheckpointError: the file belongs to another run; the message names the field that differs.
        """
        run = facts.get("run")
        stated = run.get("task_config") if isinstance(run, Mapping) else None
        if isinstance(stated, Mapping):
            options = {**task_config(self.facts["task"], {}), **stated}
            facts = {**facts, "run": {**facts["run"], "task_config": options}}
        expect_same(facts, {"run": self.facts, **settings}, path)

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Restore a checkpoint, also one of another device. On the CPU, a resumed run gives the same bits.

        Raises:
            FileFormatError: the file is damaged.
            CheckpointError: the checkpoint belongs to another run; the message names the field that differs.
        """
        state, facts = load_checkpoint(path)
        self.expect_own(facts, settings, path)
        try:
            check_fields(state, _STATE)
            if self.driver is not None:
                self.driver.load_state_dict(state["growth"])
            check_state(type(self.model).__name__, self.model.state_dict(), state["model"])
            check_finite({name: state["model"][name] for name, _ in self.model.named_parameters()})
            check_optimizer_state(self.optimizer, state["base_optimizer"])
            self.model.load_state_dict(state["model"])
            load_carried_memories(self.model, state.get("carried_memories", {}))
            self.optimizer.load_state_dict(state["base_optimizer"])
            restore_random_states(state["random"])
            if self.update_norms is not None:
                self.update_norms.load_state_dict(state["update_norms"])
            self.loss_changes = LossChanges(*state["loss_changes"])
            self._ema.load_state_dict(state["average"], [parameter for _, parameter in trainable(self.model)])
            self.epoch, self.step, self.segment = state["epoch"], state["step"], state.get("segment", 0)
            self.epoch_losses = state.get("epoch_losses", [])
            self.last_snapshot = state.get("last_snapshot", self.step)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {self.title} ({error}); start the run again with --overwrite"
            ) from error


def _network(facts: Mapping[str, Any]) -> nn.Module:
    """The network of a run with random weights, and with the growth seeds that it has from the start."""
    model = get_target_model(facts["target_model"], **facts["target_config"])
    return fully_grown(model, facts.get("grown_as", []))


class Step(NamedTuple):
    """The next training step of a target: its state, and the batch to train on."""

    state: TargetTrainingState
    batch: Batch

    def take(self) -> float:
        """Train on the batch; returns the loss before the step."""
        state = self.state
        grown = None if state.driver is None else state.driver.growth.after_backward
        return train_step(state.model, state.optimizer, state.task, self.batch, state.device, grown)
