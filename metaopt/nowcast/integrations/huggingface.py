"""Nowcasts inside the Trainer of Hugging Face transformers."""

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ...core.errors import InvalidConfig
from ...core.text import shown
from ...generative import GenerativeOptimizer
from ..optimizer import Nowcast
from ..statistics import Replay
from .guard import EVALUATION, NO_DATA, POOL, BatchesGuard, Loss, split_rows, tell_of_split, warn_of_evaluation_data
from .isolation import ReplayOnCopies, copy_of

if TYPE_CHECKING:
    from transformers import Trainer


class TrainerNowcast(Nowcast):
    """`Nowcast` that runs the network of a Trainer on copies only."""

    _replay: ClassVar[Replay] = ReplayOnCopies()


def add_nowcast(
    trainer: "Trainer",
    forecaster: GenerativeOptimizer | str | Path | None = None,
    *,
    loss: Loss | None = None,
    guard_data: Dataset[Any] | Sequence[Any] | str | None = None,
    guard_batches: int = 4,
    **options: Any,
) -> None:
    """Let a Trainer nowcast: wrap the optimizer that it creates in `Nowcast`.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        trainer = transformers.Trainer(model, arguments, train_dataset=train, eval_dataset=held_out)
        add_nowcast(trainer, "builtin")
        trainer.train()

    The guard runs on a copy of the network that shares its weights, in evaluation mode. What `compute_loss`, `forward`
    and your own attributes of the Trainer do there does not reach the training. See docs/decisions/0020.

    Args:
        trainer: one that has not started to train.
        forecaster: as for `Nowcast`.
        loss: the loss of the (copied) network on a batch, for the guard; what `compute_loss` returns by default.
        guard_data: the data set of the guard. By default a part of `train_dataset` is taken out of it: 2 %, at least 64
            examples, at most a tenth. With `"evaluation"`, or where the training data has no length, it is
            `eval_dataset`; then the reported evaluation loss is selected on, which a warning says.
        guard_batches: how many batches of the data the guard uses [count].
        options: those of `Nowcast`. A `guard` replaces all of this; `guard=None` goes without.
    Raises:
        InvalidConfig: there is neither training data to split nor evaluation data, and neither `guard_data` nor `guard`
            is given.
    """
    if "guard" not in options:
        data = _guard_data(trainer, guard_data)
        options["guard"] = BatchesGuard(
            lambda: trainer.model,
            lambda: _first_batches(trainer, data, POOL * guard_batches),
            lambda model, batch: _loss(trainer, model, batch, loss),
            guard_batches,
        )
    create = trainer.create_optimizer

    def create_optimizer(*arguments: Any, **keywords: Any) -> torch.optim.Optimizer:
        created = create(*arguments, **keywords)
        if not _nowcasts(created):
            trainer.optimizer = TrainerNowcast(created, trainer.model, forecaster, **options)
        return trainer.optimizer

    # The place that the Trainer documents for this; a callback would see its optimizer only after a resume.
    trainer.create_optimizer = create_optimizer


def _guard_data(trainer: "Trainer", given: Any) -> Any:
    """The data of the guard, which may be taken out of the training data; None for the evaluation data.

    Raises:
        InvalidConfig: there is none.
    """
    if given is not None and not isinstance(given, str):
        return given
    if given not in (None, EVALUATION):
        raise InvalidConfig(f"guard_data is {shown(given)}; expected a data set, {EVALUATION!r}, or None")
    data = trainer.train_dataset
    rows = split_rows(len(data)) if given is None and hasattr(data, "__len__") else None
    if rows is None:
        if trainer.eval_dataset is None:
            raise InvalidConfig(f"the Trainer has no eval_dataset: {NO_DATA}")
        warn_of_evaluation_data("eval_dataset", "" if given else "; the training data has no length or few examples")
        return None
    kept, held_out = rows
    tell_of_split(len(held_out), len(data))
    select = getattr(data, "select", partial(Subset, data))  # data sets of Hugging Face stay such
    trainer.train_dataset = select(kept)
    return select(held_out)


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
