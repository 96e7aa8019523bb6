"""Nowcasts inside the Trainer of Hugging Face transformers."""

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ...core.errors import InvalidConfig
from ...generative import GenerativeOptimizer
from ..optimizer import Nowcast
from .guard import NO_DATA, BatchesGuard, Loss, warn_of_evaluation_data
from .isolation import copy_of

if TYPE_CHECKING:
    from transformers import Trainer


def add_nowcast(
    trainer: "Trainer",
    forecaster: GenerativeOptimizer | str | Path | None = None,
    *,
    loss: Loss | None = None,
    guard_data: Dataset[Any] | Sequence[Any] | None = None,
    guard_batches: int = 4,
    **options: Any,
) -> None:
    """Let a Trainer nowcast: wrap the optimizer that it creates in `Nowcast`.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        train, guard = torch.utils.data.random_split(data, [0.98, 0.02])
        trainer = transformers.Trainer(model, arguments, train_dataset=train, eval_dataset=held_out)
        add_nowcast(trainer, "builtin", guard_data=guard)
        trainer.train()

    The guard runs on a copy of the network that shares its weights, in evaluation mode. What `compute_loss`, `forward`
    and your own attributes of the Trainer do there does not reach the training. See docs/decisions/0020.

    Args:
        trainer: one that has not started to train.
        forecaster: as for `Nowcast`.
        loss: the loss of the (copied) network on a batch, for the guard; what `compute_loss` returns by default.
        guard_data: the data set of the guard; `eval_dataset` by default. Then the reported evaluation loss is selected
            on, so give a part of the training data that you split off.
        guard_batches: how many batches of the data the guard uses [count].
        options: those of `Nowcast`. A `guard` replaces all of this; `guard=None` goes without.
    Raises:
        InvalidConfig: there is no evaluation data, and neither `guard_data` nor `guard` is given.
    """
    if "guard" not in options:
        if guard_data is None and trainer.eval_dataset is None:
            raise InvalidConfig(f"the Trainer has no eval_dataset: {NO_DATA}")
        if guard_data is None:
            warn_of_evaluation_data("eval_dataset")
        options["guard"] = BatchesGuard(
            lambda: trainer.model,
            lambda: _first_batches(trainer, guard_data, guard_batches),
            lambda model, batch: _loss(trainer, model, batch, loss),
        )
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


def _loss(trainer: "Trainer", model: nn.Module, batch: Any, loss: Loss | None) -> Any:
    copied = _copy(trainer, model)
    inputs = copied._prepare_inputs(batch)
    with copied.compute_loss_context_manager():
        return loss(model, inputs) if loss else copied.compute_loss(model, inputs)


def _copy(trainer: "Trainer", model: nn.Module) -> Any:
    """A copy of a Trainer that logs nothing, with copies of its state and of the attributes that a subclass added."""
    copied: Any = copy.copy(trainer)
    shared = {id(trainer): copied, id(trainer.model): model, id(trainer.model_wrapped): model}
    plain = _names_in_every_trainer()
    for name, value in vars(trainer).items():
        if name not in plain:
            setattr(copied, name, copy_of(value, shared))
    copied.state, copied.control = copy.copy(trainer.state), copy.copy(trainer.control)
    copied.state.log_history = list(trainer.state.log_history)
    copied.model = copied.model_wrapped = model
    copied.log = lambda *arguments, **keywords: None
    copied._eval_dataloaders = {}  # of persistent workers
    return copied


@cache
def _names_in_every_trainer() -> frozenset[str]:
    """Names of the attributes that the Trainer's own constructor sets, such as `accelerator` and `train_dataset`."""
    from transformers import Trainer

    constructors = (Trainer.__init__, Trainer.create_accelerator_and_postprocess)
    return frozenset(name for each in constructors for name in inspect.unwrap(each).__code__.co_names)


def _first_batches(trainer: "Trainer", data: Any, count: int) -> Iterator[Any]:
    copied = _copy(trainer, trainer.model)
    chosen = trainer.eval_dataset if data is None else data
    for some in list(chosen.values()) if isinstance(chosen, dict) else [data]:
        prepared = len(trainer.accelerator._dataloaders)
        loader = copied.get_eval_dataloader(some)
        del trainer.accelerator._dataloaders[prepared:]  # it would save the state of this one, too
        yield from _read(loader, count)


def _read(loader: Iterable[Any], count: int) -> list[Any]:
    batches = list(islice(loader, count))
    if hasattr(loader, "end"):  # accelerate's would stay the active one, because it was not read to its end
        loader.end()
    return batches
