"""Nowcasts inside the Trainer of Hugging Face transformers."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.errors import InvalidConfig
from ...generative import GenerativeOptimizer
from ..guard import BatchesGuard
from ..optimizer import Nowcast

if TYPE_CHECKING:
    from transformers import Trainer


def add_nowcast(
    trainer: "Trainer",
    forecaster: GenerativeOptimizer | str | Path | None = None,
    *,
    guard_batches: int = 4,
    **options: Any,
) -> None:
    """Let a Trainer nowcast: wrap the optimizer that it creates in `Nowcast`.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        trainer = transformers.Trainer(model, arguments, train_dataset=train, eval_dataset=held_out)
        add_nowcast(trainer, "builtin")
        trainer.train()

    Args:
        trainer: one that has not started to train.
        forecaster: as for `Nowcast`.
        guard_batches: how many batches of the evaluation data the guard uses [count].
        options: those of `Nowcast`. A `guard` replaces the loss on the evaluation data; `guard=None` goes without.
    Raises:
        InvalidConfig: there is no evaluation data and `guard` is not given.
    """
    if "guard" not in options and trainer.eval_dataset is None:
        raise InvalidConfig(
            "the Trainer has no eval_dataset to guard nowcasts with; give it one, or guard=… (None for no guard)"
        )
    options.setdefault("guard", _guard(trainer, guard_batches))
    create = trainer.create_optimizer

    def create_optimizer(*arguments: Any, **keywords: Any) -> torch.optim.Optimizer:
        created = create(*arguments, **keywords)
        if not _nowcasts(created):
            trainer.optimizer = Nowcast(created, trainer.model, forecaster, **options)
        return trainer.optimizer

    # The place that the Trainer documents for this; a callback would see its optimizer only after a resume.
    trainer.create_optimizer = create_optimizer


def _nowcasts(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a Nowcast, or accelerate's wrapper of one: the Trainer asks again when it trains again."""
    return isinstance(optimizer, Nowcast) or isinstance(getattr(optimizer, "optimizer", None), Nowcast)


def _guard(trainer: "Trainer", count: int) -> BatchesGuard:
    def loss(batch: Any) -> Tensor:
        with trainer.compute_loss_context_manager():
            return trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))

    return BatchesGuard(trainer.model, lambda: _first_batches(trainer, count), count, loss)


def _first_batches(trainer: "Trainer", count: int) -> list[Any]:
    loader = trainer.get_eval_dataloader()
    batches = list(islice(loader, count))
    if hasattr(loader, "end"):  # accelerate's would stay the active one, because it was not read to its end
        loader.end()
    return batches
