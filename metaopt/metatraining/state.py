"""Training state of a generative optimizer: its weights, their EMA, AdamW, and counters of epochs and updates."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.devices import CPU
from ..core.errors import CheckpointError, Diverged, InvalidConfig
from ..core.rng import random_states, restore_random_states, seed_all
from ..generative import GenerativeOptimizer, get_optimizer_model
from ..generative.files import CHECKPOINT_PREFIX, optimizer_facts
from ..optimizers.state import check_optimizer_state
from ..trajectories.checkpoint import expect_same, load_checkpoint, save_checkpoint
from ..trajectories.ledger_entry import TrainingFacts
from ..weights.averaging import ExponentialMovingAverage
from ..weights.building import check_finite, check_memory, check_state
from ..weights.facts import COUNT, MAPPING, Rule, check_fields, is_number
from .curriculum import Curriculum

log = logging.getLogger(__name__)

_MAX_GRADIENT_NORM = 1.0
_WARMUP_UPDATES = 20
_MAX_SKIPPED = 20  # updates in a row
_COPIES = 5  # tensors per weight: itself, its average, its gradient and two moments of AdamW [count]
_AVERAGED = CHECKPOINT_PREFIX.rstrip("/")

_VALUES = Rule(
    "lists of numbers by name",
    lambda value: (
        isinstance(value, dict) and all(isinstance(each, list) and all(map(is_number, each)) for each in value.values())
    ),
)
_STATE = {
    "model": MAPPING,
    _AVERAGED: MAPPING,
    "base_optimizer": MAPPING,
    "random": MAPPING,
    "epoch": COUNT,
    "epoch_updates": COUNT.optional,  # absent from checkpoints of metaopt 0.1, which are all written between epochs
    "epoch_values": _VALUES.optional,
    "step": COUNT,
    "skipped": COUNT,
}
"""The state in a checkpoint."""


class MetaTrainingState:
    """A generative optimizer in training. Its configuration, the data and the number of updates determine its weights.

    The learning rate is constant after a linear warm-up, and the EMA of the weights makes the predictions. So the
    length of a training need not be known in advance: an extended training gives the same bits as one that was planned
    longer.

    The constructor seeds all random generators of the process.

    `epoch` counts the finished epochs, `step` the updates, `epoch_updates` those of the present epoch, and
    `epoch_values` are their training metrics by name; a source that cannot stop within an epoch leaves these empty.

    Args:
        name: name of the generative optimizer.
        options: its configuration.
        seed: random seed.
        lr, weight_decay: of AdamW.
        ema_decay: decay of the EMA of the weights.
        device: device to train on. The initial weights are drawn on the CPU.
        curriculum: stages of the training data; None for all of it.
    Raises:
        UnknownName, InvalidConfig: the name is unknown, or an option is invalid or too large for this machine.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        *,
        seed: int,
        lr: float,
        weight_decay: float,
        ema_decay: float,
        device: torch.device = CPU,
        curriculum: Curriculum | None = None,
    ) -> None:
        check_memory(lambda: get_optimizer_model(name, **options), options, _COPIES)
        seed_all(seed)
        self.model: GenerativeOptimizer = get_optimizer_model(name, **options).to(device)
        parameters = list(self.model.parameters())
        self.predictor: GenerativeOptimizer = deepcopy(self.model).requires_grad_(False).eval()
        self._ema = ExponentialMovingAverage(ema_decay, list(self.predictor.parameters()))
        self._adamw = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay) if parameters else None
        self._lr = lr
        self._skipped = 0
        self.epoch = 0
        self.epoch_updates = 0
        self.epoch_values: dict[str, list[float]] = {}
        self.step = 0
        self.curriculum = curriculum

    def end_epoch(self) -> None:
        """Count an epoch as finished."""
        self.epoch += 1
        self.epoch_updates, self.epoch_values = 0, {}

    def start_from(self, optimizer: GenerativeOptimizer) -> None:
        """Start from the weights of a trained optimizer.

        Raises:
            InvalidConfig: it is of another class.
        """
        if type(optimizer) is not type(self.model):
            raise InvalidConfig(
                f"start_from is a {type(optimizer).__name__}, and optimizer_model {type(self.model).__name__}; "
                "give a trained optimizer of the same class"
            )
        self.model.load_state_dict(optimizer.state_dict())
        self.predictor.load_state_dict(optimizer.state_dict())

    @torch.no_grad()
    def set_evolved(self, numbers: Tensor) -> None:
        """Set the numbers that evolution changes, without an average over the updates."""
        for optimizer in (self.model, self.predictor):
            assert optimizer.evolved is not None
            optimizer.evolved.copy_(numbers)

    def update(self, objective: Tensor) -> None:
        """Minimise the objective by one step of AdamW; skip the step if the gradient is not finite.

        Raises:
            Diverged: 20 steps in a row were skipped.
        """
        self.step += 1
        if self._adamw is None:  # an optimizer without weights, such as Line
            return
        self._adamw.zero_grad()
        objective.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRADIENT_NORM)
        if not torch.isfinite(norm):
            self._skip(objective)
            return
        self._skipped = 0
        self._take_step(self._adamw)

    def _take_step(self, adamw: torch.optim.AdamW) -> None:
        adamw.param_groups[0]["lr"] = self._lr * min(1.0, self.step / _WARMUP_UPDATES)
        adamw.step()
        self._ema.update(list(self.model.parameters()))

    def save(
        self,
        path: Path,
        settings: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        about: TrainingFacts | None = None,
    ) -> None:
        """Write a checkpoint.

        Call it between epochs, or after an update that `epoch_updates` counts.

        Args:
            settings: further values that must be equal when the training is resumed.
            facts: further facts of the training, as JSON values.
            about: what the sidecar of the checkpoint states; None writes none.
        Raises:
            StorageError: the disk is full; an older checkpoint at this path is kept.
        """
        state = {
            "model": self.model.state_dict(),
            _AVERAGED: self.predictor.state_dict(),
            "averaged_count": torch.tensor(self._ema.updates),
            "base_optimizer": self._adamw.state_dict() if self._adamw else {},
            "random": random_states(),
            "epoch": self.epoch,
            "epoch_updates": self.epoch_updates,
            "epoch_values": self.epoch_values,
            "step": self.step,
            "skipped": self._skipped,
            **({} if self.curriculum is None else {"curriculum": self.curriculum.state_dict()}),
        }
        own = {"optimizer": optimizer_facts(self.model), "settings": dict(settings)}
        save_checkpoint(path, state, {**(facts or {}), **own}, about)

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Restore a checkpoint, also one of another device. On the CPU, a resumed training gives the same bits.

        Raises:
            FileFormatError: the file is damaged.
            CheckpointError: the checkpoint belongs to another training; the message names the values that differ.
        """
        state, facts = load_checkpoint(path)
        _migrate(facts)
        if "optimizer" not in facts:
            raise CheckpointError(
                f"{path} is no checkpoint of phase 2: it contains no generative optimizer. Give a checkpoint of "
                "train-optimizer"
            )
        expect_same(facts, {"optimizer": optimizer_facts(self.model), "settings": dict(settings)}, path)
        try:
            check_fields(state, _STATE)
            for name in ("model", _AVERAGED):
                check_state(type(self.model).__name__, self.model.state_dict(), state[name])
                check_finite(state[name])
            if self._adamw:
                check_optimizer_state(self._adamw, state["base_optimizer"])
            self.model.load_state_dict(state["model"])
            self.predictor.load_state_dict(state[_AVERAGED])
            self._ema.updates = int(state["averaged_count"])
            if self._adamw:
                self._adamw.load_state_dict(state["base_optimizer"])
            if self.curriculum is not None:
                self.curriculum.load_state_dict(state["curriculum"])
            restore_random_states(state["random"])
            self.epoch, self.step, self._skipped = state["epoch"], state["step"], state["skipped"]
            self.epoch_updates, self.epoch_values = state.get("epoch_updates", 0), state.get("epoch_values", {})
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {type(self.model).__name__} ({error}); train again without --resume-from"
            ) from error

    def _skip(self, objective: Tensor) -> None:
        self._skipped += 1
        log.warning("skipped update %d: its gradient is not finite (objective %g)", self.step, objective.item())
        if self._skipped >= _MAX_SKIPPED:
            raise Diverged(
                f"meta-training: no finite gradient for {self._skipped} updates in a row, up to update {self.step}. "
                "The last checkpoint is kept; train again with a lower lr and another checkpoint_name"
            )


def _migrate(facts: dict[str, Any]) -> None:
    """Bring the facts of an older checkpoint up to date: names of metaopt 0.1, and options that did not exist."""
    settings, optimizer = facts.get("settings"), facts.get("optimizer")
    if isinstance(settings, dict):
        if "straight" in settings:
            settings["min_cosine"] = settings.pop("straight")
        if "inner_steps" in settings:
            settings.setdefault("method", "look-ahead")
    if isinstance(optimizer, dict) and optimizer.get("name") == "PerceiverOptimizer":
        options = optimizer.get("config")
        optimizer["config"] = {"gains": False, **options} if isinstance(options, dict) else options
