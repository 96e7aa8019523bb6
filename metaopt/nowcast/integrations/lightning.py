"""Nowcasts inside the Trainer of Lightning."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from ...core.errors import InvalidConfig
from ...core.text import shown
from ...generative import GenerativeOptimizer
from ..optimizer import Nowcast
from ..training_passes import TrainingPasses
from .guard import (
    EVALUATION,
    NO_DATA,
    POOL,
    BatchesGuard,
    first_batches,
    split_rows,
    tell_of_split,
    warn_of_evaluation_data,
)
from .isolation import ReplayOnCopies, copy_of

Loss = Callable[[LightningModule, Any], Tensor]


class NowcastCallback(Callback):
    """Wraps the optimizer of a LightningModule in `Nowcast` when training starts.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        callback = NowcastCallback("builtin")
        trainer = lightning.Trainer(max_epochs=3, callbacks=[callback])
        trainer.fit(module, train_loader, validation_loader)

    The guard runs on a copy of the module that shares its weights, in evaluation mode and the Trainer's precision. What
    `validation_step` or `loss` do there (logging, metrics, lists) does not reach the training. See docs/decisions/0020.

    Args:
        forecaster: as for `Nowcast`.
        loss: the loss of the (copied) module on a batch, for the guard; what `validation_step` returns by default, or
            `training_step` where there is none.
        guard_data: the data of the guard: one or several data loaders, or a list of batches. By default a part of the
            training data is taken out of it: 2 %, at least 64 examples, at most a tenth. With `"evaluation"`, or where
            the training data is not one data loader that reads a data set in order or shuffled, it is the validation
            data; then the reported validation loss is selected on, which a warning says.
        guard_batches: how many batches of each data loader the guard uses [count].
        options: those of `Nowcast`. A `guard` replaces all of this; `guard=None` goes without.
    """

    def __init__(
        self,
        forecaster: GenerativeOptimizer | str | Path | None = None,
        *,
        loss: Loss | None = None,
        guard_data: Any = None,
        guard_batches: int = 4,
        **options: Any,
    ) -> None:
        self.forecaster, self.loss, self.guard_data, self.guard_batches = forecaster, loss, guard_data, guard_batches
        self.options = options
        self._training_data: _TrainingData | None = None
        self._evaluates = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put a Nowcast in the optimizer's place.

        Raises:
            InvalidConfig: the module has no optimizer, or several; or `guard_data` is another text.
        """
        if len(trainer.optimizers) != 1:
            raise InvalidConfig(f"the module has {len(trainer.optimizers)} optimizers; expected one to nowcast with")
        (base,) = trainer.optimizers
        if isinstance(base, Nowcast):
            return
        if isinstance(self.guard_data, str) and self.guard_data != EVALUATION:
            raise InvalidConfig(
                f"guard_data is {shown(self.guard_data)}; expected data loaders, batches, {EVALUATION!r}, or None"
            )
        by_default = "guard" not in self.options
        self._evaluates = by_default and isinstance(self.guard_data, str)
        self._training_data = _TrainingData(trainer) if by_default and self.guard_data is None else None
        options = {"guard": self._guard(trainer), **self.options}
        # LearningRateMonitor logs under the name of the class.
        named_as_base = type(type(base).__name__, (Nowcast,), {"_replay": _ReplayTrainingSteps(trainer)})
        trainer.strategy.optimizers = [named_as_base(base, pl_module, self.forecaster, **options)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is held-out data, before the first step.

        Raises:
            InvalidConfig: there is none, and no `guard` was given.
        """
        not_split = self._training_data is not None and self._training_data.held_out is None
        if not self._evaluates and not not_split:
            return
        if not trainer.val_dataloaders:
            raise InvalidConfig(NO_DATA)
        why = "; the training data is not one data loader of a data set with enough examples" if not_split else ""
        warn_of_evaluation_data("the validation data", why)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let the Nowcast keep the batch, if BatchNorm statistics need it."""
        if pl_module.automatic_optimization and isinstance(trainer.optimizers[0], Nowcast):
            trainer.optimizers[0].note_inputs(batch, batch_idx)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the Trainer read its whole training data again."""
        if self._training_data is not None:
            self._training_data.restore()

    def _guard(self, trainer: Trainer) -> BatchesGuard:
        def batches() -> Iterator[tuple[Any, int, int | None]]:
            data = None if isinstance(self.guard_data, str) else self.guard_data
            if self._training_data is not None and self._training_data.held_out is not None:
                data = self._training_data.held_out
            return _batches(trainer, data, POOL * self.guard_batches)

        def loss(module: nn.Module, item: Any) -> Any:
            return _loss(trainer, module, item, self.loss)

        return BatchesGuard(lambda: trainer.lightning_module, batches, loss, self.guard_batches)


class _ReplayTrainingSteps(ReplayOnCopies):
    """Runs `training_step` of a copied module again, on batches that are on the device of the Trainer."""

    hooked = False

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def run(self, model: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Run a training step; what it logs and returns is dropped."""
        batch, index = arguments
        _silence(model, self._trainer)
        with self._trainer.precision_plugin.train_step_context():
            model.training_step(*_arguments(model.training_step, copy_of(batch), index, None))

    def precision(self, passes: TrainingPasses) -> AbstractContextManager[Any]:
        """That of the Trainer, because no hook sees the autocast."""
        context: AbstractContextManager[Any] = self._trainer.precision_plugin.forward_context()
        return context


class _TrainingData:
    """The training data of a Trainer, of which a part is taken to guard nowcasts when the Trainer opens it.

    Attributes:
        held_out: a data loader of that part; None before, and where none can be taken.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.held_out: DataLoader[Any] | None = None
        self._told = False
        # Whatever gives the data: an argument of `fit`, a hook of the module, or a data module.
        self._source: Any = trainer.fit_loop._data_source
        self._source.dataloader = self._dataloader

    def restore(self) -> None:
        """Let the Trainer read all of it again."""
        vars(self._source).pop("dataloader", None)

    def _dataloader(self) -> Any:
        loader = type(self._source).dataloader(self._source)
        rows = split_rows(len(loader.dataset)) if _is_splittable(loader) else None
        if rows is None:
            return loader
        kept, held_out = rows
        if not self._told:
            tell_of_split(len(held_out), len(loader.dataset))
            self._told = True
        same = {name: getattr(loader, name) for name in _SAME_OPTIONS}
        self.held_out = DataLoader(Subset(loader.dataset, held_out), loader.batch_size, collate_fn=loader.collate_fn)
        return DataLoader(Subset(loader.dataset, kept), shuffle=isinstance(loader.sampler, RandomSampler), **same)


_SAME_OPTIONS = (
    "batch_size", "num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn",
    "multiprocessing_context", "generator", "prefetch_factor", "persistent_workers",
)  # fmt: skip


def _is_splittable(loader: Any) -> bool:
    """Whether it is a data loader that reads a data set in order or shuffled, in batches of equal size."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return False
    sampler = loader.sampler
    plain = type(sampler) is RandomSampler and not sampler.replacement and sampler._num_samples is None
    return type(loader.batch_sampler) is BatchSampler and (plain or type(sampler) is SequentialSampler)


def _batches(trainer: Trainer, data: Any, count: int) -> Iterator[tuple[Any, int, int | None]]:
    """Batches with their index, and that of their data loader where `validation_step` is told it."""
    used = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    if data is not None or used is None or used._mode == "sequential":
        loaders = _loaders(data) if data is not None else CombinedLoader(trainer.val_dataloaders).flattened
        for batch, index, number in first_batches(loaders, count):
            yield batch, index, number if len(loaders) > 1 else None
        return
    combined = CombinedLoader(used.iterables, used._mode)
    combined.flattened = [[batch for batch, _, _ in first_batches([loader], count)] for loader in combined.flattened]
    for batch, index, _ in combined:
        yield batch, index, None


def _loaders(data: Any) -> list[Iterable[Any]]:
    """The data loaders in `guard_data`; a list of batches is one."""
    several = list(data.values()) if isinstance(data, dict) else data
    return list(several) if isinstance(several, list | tuple) and all(map(_is_loader, several)) else [data]


def _is_loader(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, Tensor | list | tuple | dict)


def _loss(trainer: Trainer, module: Any, item: tuple[Any, int, int | None], loss: Loss | None) -> Any:
    """The loss of a copied module on a batch, in the precision and on the device of the Trainer."""
    batch, index, number = item
    _silence(module, trainer)
    batch = _transferred(trainer, module, batch, number or 0)
    with trainer.precision_plugin.val_step_context():
        result: Any
        if loss:
            result = loss(module, batch)
        else:
            step = module.validation_step if is_overridden("validation_step", module) else module.training_step
            result = step(*_arguments(step, batch, index, number))
    return result.get("loss") if isinstance(result, dict) else result


def _silence(module: Any, trainer: Trainer) -> None:
    """Let a copied module log and print nothing, and see a Trainer that validates."""
    view = _TrainerOfCopy(trainer)
    for each in module.modules():
        if isinstance(each, LightningModule):
            each._trainer = view
            each.log = each.log_dict = each.print = _do_nothing


def _arguments(step: Callable[..., Any], batch: Any, index: int, number: int | None) -> list[Any]:
    """What the Trainer gives to `validation_step` or `training_step`.

    Raises:
        InvalidConfig: it takes the iterator of the data.
    """
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        raise InvalidConfig(
            f"{step.__name__} takes dataloader_iter, which would read the Trainer's data. Give "
            "NowcastCallback(loss=lambda module, batch: …) or guard=… (None for no guard)"
        )
    with_index = is_param_in_hook_signature(step, "batch_idx", min_args=2)
    return [batch, *([index] if with_index else []), *([] if number is None else [number])]


def _transferred(trainer: Trainer, module: Any, batch: Any, number: int) -> Any:
    """A batch on the Trainer's device, after the hooks of the copied module or of a copied data module."""
    batch = trainer.precision_plugin.convert_input(batch)
    data = trainer.datamodule
    for name, device in (
        ("on_before_batch_transfer", ()),
        ("transfer_batch_to_device", (trainer.strategy.root_device,)),
        ("on_after_batch_transfer", ()),
    ):
        owner = copy_of(data, {id(trainer): module.trainer}) if data and is_overridden(name, data) else module
        batch = getattr(owner, name)(batch, *device, number)
    return batch


class _TrainerOfCopy:
    """What the copied module sees as its Trainer: one that validates and logs nothing. Assignments stay here."""

    training, validating, sanity_checking = False, True, False

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.logger = DummyLogger()
        self.loggers = [self.logger]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


def _do_nothing(*arguments: Any, **keywords: Any) -> None:
    """Stands for `log`, `log_dict` and `print`."""
