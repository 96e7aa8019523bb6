"""Nowcasts inside the Trainer of Lightning."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from ...core.errors import InvalidConfig
from ...generative import GenerativeOptimizer
from ..guard import BatchesGuard
from ..optimizer import Nowcast

Loss = Callable[[LightningModule, Any], Tensor]


class NowcastCallback(Callback):
    """Wraps the optimizer of a LightningModule in `Nowcast` when training starts.

    The checkpoints of the Trainer then contain the history as well, and training resumes from them as usual.

        trainer = lightning.Trainer(max_epochs=3, callbacks=[NowcastCallback("builtin")])
        trainer.fit(module, train_loader, validation_loader)

    Args:
        forecaster: as for `Nowcast`.
        loss: the loss of a batch of the validation data, for the guard; what `validation_step` returns by default.
        guard_batches: how many batches of the validation data the guard uses [count].
        options: those of `Nowcast`. A `guard` replaces the loss on the validation data; `guard=None` goes without.
    """

    def __init__(
        self,
        forecaster: GenerativeOptimizer | str | Path | None = None,
        *,
        loss: Loss | None = None,
        guard_batches: int = 4,
        **options: Any,
    ) -> None:
        self.forecaster, self.loss, self.guard_batches, self.options = forecaster, loss, guard_batches, options

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
        options = {"guard": self._guard(trainer, pl_module), **self.options}
        trainer.strategy.optimizers = [Nowcast(base, pl_module, self.forecaster, **options)]

    def _guard(self, trainer: Trainer, module: LightningModule) -> BatchesGuard:
        def loss(batch: Any) -> Tensor:
            batch = move_data_to_device(batch, module.device)
            with _silent(module):
                return self.loss(module, batch) if self.loss else _validation_loss(module, batch)

        return BatchesGuard(module, lambda: _first_loader(trainer), self.guard_batches, loss)


def _validation_loss(module: LightningModule, batch: Any) -> Tensor:
    result = module.validation_step(batch, 0)
    loss = result.get("loss") if isinstance(result, dict) else result
    if not isinstance(loss, Tensor):
        raise InvalidConfig(
            f"validation_step returned {type(result).__name__}, which has no loss to guard nowcasts with; return the "
            "loss there, or give NowcastCallback(loss=lambda module, batch: …) or guard=… (None for no guard)"
        )
    return loss


def _first_loader(trainer: Trainer) -> Any:
    loaders = trainer.val_dataloaders or ()
    return next(iter(loaders), ()) if isinstance(loaders, list | tuple) else loaders


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Without logging: what the guard sees is no step of the training's validation."""
    names = ("log", "log_dict")
    for name in names:
        setattr(module, name, lambda *arguments, **keywords: None)
    try:
        yield
    finally:
        for name in names:
            delattr(module, name)
