"""Nowcasts inside the Trainer of Lightning."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn

from ...core.errors import InvalidConfig
from ...generative import GenerativeOptimizer
from ..optimizer import Nowcast
from .guard import NO_DATA, BatchesGuard, first_batches, warn_of_evaluation_data
from .isolation import copy_of

Loss = Callable[[LightningModule, Any], Tensor]


class NowcastCallback(Callback):
    """Wraps the optimizer of a LightningModule in `Nowcast` when training starts.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        callback = NowcastCallback("builtin", guard_data=DataLoader(split_off, 32))
        trainer = lightning.Trainer(max_epochs=3, callbacks=[callback])
        trainer.fit(module, train_loader, validation_loader)

    The guard runs on a copy of the module that shares its weights, in evaluation mode and the Trainer's precision. What
    `validation_step` or `loss` do there (logging, metrics, lists) does not reach the training. See docs/decisions/0020.

    Args:
        forecaster: as for `Nowcast`.
        loss: the loss of the (copied) module on a batch, for the guard; what `validation_step` returns by default.
        guard_data: the data of the guard: one or several data loaders, or a list of batches; the validation data by
            default. Then the reported validation loss is selected on, so give a part of the training data that you
            split off.
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
        self._uses_validation_data = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put a Nowcast in the optimizer's place.

        Raises:
            InvalidConfig: the module has no optimizer, or several.
        """
        if len(trainer.optimizers) != 1:
            raise InvalidConfig(f"the module has {len(trainer.optimizers)} optimizers; expected one to nowcast with")
        (base,) = trainer.optimizers
        if isinstance(base, Nowcast):
            return
        self._uses_validation_data = "guard" not in self.options and self.guard_data is None
        options = {"guard": self._guard(trainer), **self.options}
        # LearningRateMonitor logs under the name of the class.
        named_as_base = type(type(base).__name__, (Nowcast,), {})
        trainer.strategy.optimizers = [named_as_base(base, pl_module, self.forecaster, **options)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is held-out data, before the first step.

        Raises:
            InvalidConfig: there is none, and no `guard` was given.
        """
        if self._uses_validation_data and not trainer.val_dataloaders:
            raise InvalidConfig(NO_DATA)
        if self._uses_validation_data:
            warn_of_evaluation_data("the validation data")

    def _guard(self, trainer: Trainer) -> BatchesGuard:
        def batches() -> Iterator[tuple[Any, int, int | None]]:
            return _batches(trainer, self.guard_data, self.guard_batches)

        def loss(module: nn.Module, item: Any) -> Any:
            return _loss(trainer, module, item, self.loss)

        return BatchesGuard(lambda: trainer.lightning_module, batches, loss)


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
    view = _TrainerOfCopy(trainer)
    for each in module.modules():
        if isinstance(each, LightningModule):
            each._trainer = view
            each.log = each.log_dict = each.print = _do_nothing
    batch = _transferred(trainer, module, batch, number or 0)
    with trainer.precision_plugin.val_step_context():
        result = loss(module, batch) if loss else module.validation_step(*_arguments(module, batch, index, number))
    return result.get("loss") if isinstance(result, dict) else result


def _arguments(module: LightningModule, batch: Any, index: int, number: int | None) -> list[Any]:
    """What the Trainer gives to `validation_step`.

    Raises:
        InvalidConfig: it takes the iterator of the data.
    """
    step = module.validation_step
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        raise InvalidConfig(
            "validation_step takes dataloader_iter, which would read the Trainer's data. Give "
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
