"""One generative optimizer in training: its weights, their running average, and how far it is."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError, Diverged, InvalidConfig
from ..core.rng import random_states, restore_random_states, seed_all
from ..generative import GenerativeOptimizer, get_optimizer_model
from ..generative.files import CHECKPOINT_PREFIX, optimizer_facts
from ..trajectories.checkpoint import expect_same, load_checkpoint, save_checkpoint
from ..weights.averaging import ExponentialMovingAverage

log = logging.getLogger(__name__)

_LARGEST_GRADIENT = 1.0
_WARMUP = 20
_MOST_SKIPPED = 20


class MetaTrainingState:
    """A meta-training that its configuration, the pairs and the number of updates determine.

    The learning rate rises over the first updates and then stays, and the running average of the weights is what
    predicts: so a training can always be made longer, to the same bits as one that was long from the start.

    Building it seeds all random generators of the process.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], *, seed: int, lr: float, weight_decay: float, average: float
    ) -> None:
        seed_all(seed)
        self.model: GenerativeOptimizer = get_optimizer_model(name, **options)
        parameters = list(self.model.parameters())
        self.predictor: GenerativeOptimizer = deepcopy(self.model).requires_grad_(False).eval()
        self._average = ExponentialMovingAverage(average, list(self.predictor.parameters()))
        self._base = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay) if parameters else None
        self._lr = lr
        self._skipped = 0
        self.epoch = 0
        self.step = 0

    def start_from(self, optimizer: GenerativeOptimizer) -> None:
        """Begin with the weights of a trained optimizer.

        Raises:
            InvalidConfig: it is of another kind.
        """
        if type(optimizer) is not type(self.model):
            raise InvalidConfig(
                f"start_from is a {type(optimizer).__name__}, and optimizer_model {type(self.model).__name__}; "
                "give one of the same kind"
            )
        self.model.load_state_dict(optimizer.state_dict())
        self.predictor.load_state_dict(optimizer.state_dict())

    def update(self, objective: Tensor) -> None:
        """Lower the objective by one step of AdamW; a step without a finite gradient is left out.

        Raises:
            Diverged: many steps in a row had none.
        """
        self.step += 1
        if self._base is None:  # an optimizer without weights, such as Line, has nothing to learn
            return
        self._base.zero_grad()
        objective.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        if not torch.isfinite(norm):
            self._skip(objective)
            return
        self._skipped = 0
        self._base.param_groups[0]["lr"] = self._lr * min(1.0, self.step / _WARMUP)
        self._base.step()
        self._average.update(list(self.model.parameters()))

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint; between epochs only, because the order of pairs depends on the epoch alone.

        Raises:
            StorageError: the disk is full; an older checkpoint at that place is kept.
        """
        state = {
            "model": self.model.state_dict(),
            CHECKPOINT_PREFIX.rstrip("/"): self.predictor.state_dict(),
            "averaged_count": torch.tensor(self._average.updates),
            "base_optimizer": self._base.state_dict() if self._base else {},
            "random": random_states(),
            "epoch": self.epoch,
            "step": self.step,
            "skipped": self._skipped,
        }
        save_checkpoint(path, state, {"optimizer": optimizer_facts(self.model), "settings": dict(settings)})

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, to the same bits as without a stop.

        Raises:
            FileFormatError: it is damaged.
            CheckpointError: it belongs to another training; the message names what differs.
        """
        state, facts = load_checkpoint(path)
        _rename_settings(facts)
        if "optimizer" not in facts:
            raise CheckpointError(
                f"{path} is no checkpoint of phase 2: it holds no generative optimizer. Give one that train-optimizer "
                "wrote"
            )
        expect_same(facts, {"optimizer": optimizer_facts(self.model), "settings": dict(settings)}, path)
        try:
            self.model.load_state_dict(state["model"])
            self.predictor.load_state_dict(state[CHECKPOINT_PREFIX.rstrip("/")])
            self._average.updates = int(state["averaged_count"])
            if self._base:
                self._base.load_state_dict(state["base_optimizer"])
            restore_random_states(state["random"])
            self.epoch, self.step, self._skipped = state["epoch"], state["step"], state["skipped"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {type(self.model).__name__} ({error}); train it anew without --resume-from"
            ) from error

    def _skip(self, objective: Tensor) -> None:
        self._skipped += 1
        log.warning("update %d left out: its gradient is not finite (objective %g)", self.step, objective.item())
        if self._skipped >= _MOST_SKIPPED:
            raise Diverged(
                f"meta-training: no finite gradient for {self._skipped} updates in a row, up to update {self.step}. "
                "The last checkpoint is kept; train anew with a lower lr, under another checkpoint_name"
            )


def _rename_settings(facts: dict[str, Any]) -> None:
    """Give the settings of a checkpoint of metaopt 0.1 their present names."""
    settings = facts.get("settings")
    if isinstance(settings, dict) and "straight" in settings:
        settings["min_cosine"] = settings.pop("straight")
